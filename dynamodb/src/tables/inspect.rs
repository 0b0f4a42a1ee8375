//! Whether the tables are there and as they must be, as a report that says what to do.

use std::fmt;

use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, KeyType, MultiRegionConsistency, TableDescription, TableStatus,
    TimeToLiveStatus,
};

use super::TableSpec;
use crate::client::DynamoDb;
use crate::failure::{Failure, classify};

/// A table as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Its name, with the prefix.
    pub name: String,
    /// Given by DynamoDB at its creation; another one after a restore.
    pub id: Option<String>,
    /// Whether it refuses to be deleted.
    pub deletion_protection: bool,
    /// The other Regions with replicas of it.
    pub replicas: Vec<String>,
    /// `partition p (B), sort s (N)`
    pub schema: String,
    ready: bool,
    strong_across_regions: bool,
    time_to_live: Option<String>,
}

impl TableFacts {
    /// Whether rows are removed by an attribute.
    pub(super) fn removes_by(&self, attribute: &str) -> bool {
        self.time_to_live.as_deref() == Some(attribute)
    }
}

impl fmt::Display for TableFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protected = if self.deletion_protection {
            "on"
        } else {
            "OFF"
        };
        write!(f, "{}: {}", self.name, self.schema)?;
        if let Some(attribute) = &self.time_to_live {
            write!(f, "; time to live by {attribute}")?;
        }
        write!(f, "; deletion protection {protected}")?;
        if !self.replicas.is_empty() {
            write!(f, "; replicas in {}", self.replicas.join(", "))?;
        }
        Ok(())
    }
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not there.
    #[error("is not there; make it with `duologue tables create`, or look at Region and prefix")]
    Missing,
    /// Its keys are others.
    #[error("has another schema: {found}, and not {wanted}; it is not Duologue's")]
    OtherSchema {
        /// What it has.
        found: String,
        /// What it must have.
        wanted: String,
    },
    /// Rows that have had their time are kept.
    #[error("does not remove rows by their attribute {0}; turn its time to live on")]
    NoTimeToLive(&'static str),
    /// It is being made, or deleted.
    #[error("is not ready yet")]
    NotReady,
    /// Who asks may not.
    #[error("may not be looked at with these credentials: {0}")]
    NotAllowed(String),
    /// Other Regions may write to it, and of two writes the last one wins.
    #[error(
        "has replicas in {0}, and acknowledged messages could be lost to writes there; \
         use strong consistency across Regions, or name this one as the home Region"
    )]
    Replicated(String),
    /// It was not answered.
    #[error("cannot be looked at: {0}")]
    Unreachable(String),
}

/// Everything that is wrong with the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The Region that was asked.
    pub region: String,
    /// Table and problem.
    pub problems: Vec<(String, Problem)>,
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tables in Region {} cannot be used:", self.region)?;
        for (table, problem) in &self.problems {
            write!(f, "\n- {table} {problem}")?;
        }
        Ok(())
    }
}

/// Looks at every table: what it is, or why that cannot be said.
pub async fn describe(
    database: &DynamoDb,
    specs: &[TableSpec],
) -> Vec<(String, Result<TableFacts, Problem>)> {
    let mut tables = Vec::with_capacity(specs.len());
    for spec in specs {
        tables.push((database.table(spec), facts(database, spec).await));
    }
    tables
}

/// Whether every table is there and as it must be.
pub async fn check(database: &DynamoDb, specs: &[TableSpec]) -> Result<Vec<TableFacts>, Report> {
    let mut tables = Vec::with_capacity(specs.len());
    let mut problems = Vec::new();
    for (spec, (name, found)) in specs.iter().zip(describe(database, specs).await) {
        match found.and_then(|facts| judge(database, spec, facts)) {
            Ok(facts) => tables.push(facts),
            Err(problem) => problems.push((name, problem)),
        }
    }
    if problems.is_empty() {
        return Ok(tables);
    }
    let region = database.region().into();
    Err(Report { region, problems })
}

fn judge(database: &DynamoDb, spec: &TableSpec, facts: TableFacts) -> Result<TableFacts, Problem> {
    if facts.schema != spec.schema() {
        return Err(Problem::OtherSchema {
            found: facts.schema,
            wanted: spec.schema(),
        });
    }
    if !facts.ready {
        return Err(Problem::NotReady);
    }
    if let Some(wanted) = spec.time_to_live
        && !facts.removes_by(wanted)
    {
        return Err(Problem::NoTimeToLive(wanted));
    }
    let at_home = database.options().home_region.as_deref() == Some(database.region());
    if !facts.replicas.is_empty() && !facts.strong_across_regions && !at_home {
        return Err(Problem::Replicated(facts.replicas.join(", ")));
    }
    Ok(facts)
}

async fn facts(database: &DynamoDb, spec: &TableSpec) -> Result<TableFacts, Problem> {
    let name = database.table(spec);
    let asked = database.repeating().describe_table().table_name(&name);
    let answer = asked.send().await.map_err(|error| {
        let gone = error
            .as_service_error()
            .is_some_and(DescribeTableError::is_resource_not_found_exception);
        if gone {
            Problem::Missing
        } else {
            problem(classify(&error))
        }
    })?;
    let table = answer.table.ok_or(Problem::Missing)?;
    let time_to_live = match spec.time_to_live {
        Some(_) => time_to_live(database, &name).await?,
        None => None,
    };
    let here = |region: &&str| *region != database.region();
    let replicas = table
        .replicas()
        .iter()
        .filter_map(|replica| replica.region_name());
    Ok(TableFacts {
        name,
        schema: schema(&table),
        replicas: replicas.filter(here).map(Into::into).collect(),
        deletion_protection: table.deletion_protection_enabled().unwrap_or_default(),
        ready: matches!(
            table.table_status(),
            Some(TableStatus::Active | TableStatus::Updating)
        ),
        strong_across_regions: table.multi_region_consistency()
            == Some(&MultiRegionConsistency::Strong),
        id: table.table_id,
        time_to_live,
    })
}

async fn time_to_live(database: &DynamoDb, table: &str) -> Result<Option<String>, Problem> {
    let asked = database
        .repeating()
        .describe_time_to_live()
        .table_name(table);
    let answer = asked
        .send()
        .await
        .map_err(|error| problem(classify(&error)))?;
    let described = answer.time_to_live_description;
    Ok(described
        .filter(|described| {
            matches!(
                described.time_to_live_status(),
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
            )
        })
        .and_then(|described| described.attribute_name))
}

fn problem(failure: Failure) -> Problem {
    if let Failure::Refused(text) = &failure
        && text.starts_with("AccessDenied")
    {
        return Problem::NotAllowed(text.clone());
    }
    Problem::Unreachable(failure.to_string())
}

/// As [`TableSpec::schema`] has it; indexes are no part of Duologue's tables.
fn schema(table: &TableDescription) -> String {
    let kind = |name: &str| {
        let mut attributes = table.attribute_definitions().iter();
        let attribute = attributes.find(|attribute| attribute.attribute_name() == name);
        attribute.map_or("?", |attribute: &AttributeDefinition| {
            attribute.attribute_type().as_str()
        })
    };
    let mut parts: Vec<String> = Vec::new();
    for (role, kind_of_key) in [("partition", KeyType::Hash), ("sort", KeyType::Range)] {
        let keys = table.key_schema().iter();
        let keys = keys.filter(|key| *key.key_type() == kind_of_key);
        parts.extend(keys.map(|key| {
            let name = key.attribute_name();
            format!("{role} {name} ({})", kind(name))
        }));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region, SdkConfig};

    use super::super::{Key, KeyKind};
    use super::*;
    use crate::client::Options;

    const SPEC: TableSpec = TableSpec {
        name: "messages",
        partition: Key {
            name: "p",
            kind: KeyKind::Bytes,
        },
        sort: None,
        time_to_live: None,
    };

    fn replicated(strong: bool) -> TableFacts {
        TableFacts {
            name: "messages".into(),
            id: None,
            deletion_protection: true,
            replicas: vec!["us-east-1".into()],
            schema: SPEC.schema(),
            ready: true,
            strong_across_regions: strong,
            time_to_live: None,
        }
    }

    fn in_region(region: &'static str, home: Option<&str>) -> DynamoDb {
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region))
            .build();
        let options = Options {
            home_region: home.map(Into::into),
            ..Options::default()
        };
        DynamoDb::new(&sdk, options).unwrap()
    }

    #[test]
    fn a_table_with_replicas_is_used_only_at_home_or_with_strong_consistency() {
        let refused = Err(Problem::Replicated("us-east-1".into()));
        let judged = |home, strong| {
            let database = in_region("eu-west-1", home);
            judge(&database, &SPEC, replicated(strong))
        };
        assert_eq!(judged(None, false), refused);
        assert_eq!(judged(Some("us-east-1"), false), refused);
        assert!(judged(Some("eu-west-1"), false).is_ok());
        assert!(judged(None, true).is_ok());
    }

    #[test]
    fn what_may_not_be_looked_at_is_told_from_what_does_not_answer() {
        let denied = Failure::Refused("AccessDeniedException: not authorized".into());
        assert!(matches!(problem(denied), Problem::NotAllowed(_)));
        let lost = Failure::Unknown("timed out".into());
        assert!(matches!(problem(lost), Problem::Unreachable(_)));
    }
}
