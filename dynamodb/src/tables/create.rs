//! Making the tables: for operators and tests, never by a service.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ScalarAttributeType, TimeToLiveSpecification,
};
use tokio::time::Instant;

use super::inspect::{Problem, check, describe};
use super::{Key, KeyKind, TableSpec};
use crate::client::DynamoDb;
use crate::failure::{Failure, classify};

/// Until a new table is ready.
pub const CREATE_TIMEOUT: Duration = Duration::from_mins(2);
/// How often a new table is looked at.
pub const CREATE_POLL: Duration = Duration::from_millis(500);

/// What became of a table that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name, with the prefix.
    pub name: String,
    /// False if it was there.
    pub new: bool,
    /// Whether it can be restored to any second of the last days.
    pub recovery: Recovery,
}

/// Point-in-time recovery of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It is on.
    On,
    /// This DynamoDB does not offer it: it is one for development.
    NotOffered,
}

/// Why a table was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// DynamoDB says no, or nothing.
    #[error("{table} cannot be made: {failure}")]
    Failed {
        /// The table.
        table: String,
        /// Why.
        failure: Failure,
    },
    /// It is there, and cannot be used.
    #[error("{table} {problem}")]
    Unusable {
        /// The table.
        table: String,
        /// What is wrong.
        problem: Problem,
    },
}

/// Makes the tables that are not there: on demand, with deletion protection and
/// point-in-time recovery. May be repeated; a table that is there keeps its schema, and
/// one of another schema is an error.
pub async fn create(database: &DynamoDb, specs: &[TableSpec]) -> Result<Vec<Created>, CreateError> {
    let mut created = Vec::with_capacity(specs.len());
    for spec in specs {
        let name = database.table(spec);
        let new = create_one(database, spec, &name).await?;
        wait_until_ready(database, spec, &name).await?;
        time_to_live(database, spec, &name).await?;
        let recovery = recovery(database, &name).await?;
        usable(database, spec, &name).await?;
        created.push(Created {
            name,
            new,
            recovery,
        });
    }
    Ok(created)
}

fn failed(table: &str) -> impl Fn(Failure) -> CreateError {
    move |failure| CreateError::Failed {
        table: table.into(),
        failure,
    }
}

/// False if it is there.
async fn create_one(
    database: &DynamoDb,
    spec: &TableSpec,
    name: &str,
) -> Result<bool, CreateError> {
    let invalid = |error: aws_sdk_dynamodb::error::BuildError| {
        failed(name)(Failure::NotSent(error.to_string()))
    };
    let mut request = database
        .repeating()
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .deletion_protection_enabled(true);
    let keys = [
        (Some(spec.partition), KeyType::Hash),
        (spec.sort, KeyType::Range),
    ];
    for (key, role) in keys {
        let Some(key) = key else { continue };
        request = request
            .key_schema(element(key, role).map_err(invalid)?)
            .attribute_definitions(definition(key).map_err(invalid)?);
    }
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) => match error.as_service_error() {
            Some(error) if error.is_resource_in_use_exception() => Ok(false),
            Some(_) | None => Err(failed(name)(classify(&error))),
        },
    }
}

fn element(
    key: Key,
    role: KeyType,
) -> Result<KeySchemaElement, aws_sdk_dynamodb::error::BuildError> {
    KeySchemaElement::builder()
        .attribute_name(key.name)
        .key_type(role)
        .build()
}

fn definition(key: Key) -> Result<AttributeDefinition, aws_sdk_dynamodb::error::BuildError> {
    AttributeDefinition::builder()
        .attribute_name(key.name)
        .attribute_type(match key.kind {
            KeyKind::Text => ScalarAttributeType::S,
            KeyKind::Number => ScalarAttributeType::N,
            KeyKind::Bytes => ScalarAttributeType::B,
        })
        .build()
}

/// Its time to live is turned on later.
async fn wait_until_ready(
    database: &DynamoDb,
    spec: &TableSpec,
    name: &str,
) -> Result<(), CreateError> {
    let keys = TableSpec {
        time_to_live: None,
        ..*spec
    };
    let deadline = Instant::now() + CREATE_TIMEOUT;
    loop {
        match usable(database, &keys, name).await {
            // What was just made may not be seen at once.
            Err(CreateError::Unusable {
                problem: Problem::NotReady | Problem::Missing,
                ..
            }) if Instant::now() < deadline => tokio::time::sleep(CREATE_POLL).await,
            outcome => return outcome,
        }
    }
}

async fn usable(database: &DynamoDb, spec: &TableSpec, name: &str) -> Result<(), CreateError> {
    match check(database, std::slice::from_ref(spec)).await {
        Ok(_) => Ok(()),
        Err(report) => {
            let problem = report.problems.into_iter().next();
            Err(CreateError::Unusable {
                table: name.into(),
                problem: problem.map_or(Problem::NotReady, |(_, problem)| problem),
            })
        }
    }
}

async fn time_to_live(
    database: &DynamoDb,
    spec: &TableSpec,
    name: &str,
) -> Result<(), CreateError> {
    let Some(attribute) = spec.time_to_live else {
        return Ok(());
    };
    // To turn it on twice is an error.
    let found = describe(database, std::slice::from_ref(spec)).await;
    let on = found.iter().any(|(_, facts)| {
        let facts = facts.as_ref().ok();
        facts.is_some_and(|facts| facts.removes_by(attribute))
    });
    if on {
        return Ok(());
    }
    let specification = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(attribute)
        .build()
        .map_err(|error| failed(name)(Failure::NotSent(error.to_string())))?;
    let turned_on = database
        .repeating()
        .update_time_to_live()
        .table_name(name)
        .time_to_live_specification(specification)
        .send();
    let turned_on = turned_on.await.map_err(|error| classify(&error));
    turned_on.map(drop).map_err(failed(name))
}

async fn recovery(database: &DynamoDb, name: &str) -> Result<Recovery, CreateError> {
    let specification = PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(true)
        .build()
        .map_err(|error| failed(name)(Failure::NotSent(error.to_string())))?;
    let turn_on = database
        .repeating()
        .update_continuous_backups()
        .table_name(name)
        .point_in_time_recovery_specification(specification);
    let deadline = Instant::now() + CREATE_TIMEOUT;
    loop {
        let turned_on = turn_on.clone().send().await;
        match turned_on.map_err(|error| classify(&error)) {
            Ok(_) => return Ok(Recovery::On),
            // So says one for development.
            Err(Failure::Refused(text)) if text.starts_with("UnknownOperationException") => {
                return Ok(Recovery::NotOffered);
            }
            // A new table has no backups at first.
            Err(Failure::Refused(text))
                if text.starts_with("ContinuousBackupsUnavailableException")
                    && Instant::now() < deadline =>
            {
                tokio::time::sleep(CREATE_POLL).await;
            }
            Err(failure) => return Err(failed(name)(failure)),
        }
    }
}
