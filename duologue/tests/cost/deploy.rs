//! What `deploy/aws` says is what the code makes and asks for.

use std::collections::BTreeSet;

use duologue_dynamodb::tables::{Key, TableSpec};
use serde_json::{Value, json};

use crate::people::{Mix, People};
use crate::system::{System, tables};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn definition(spec: &TableSpec) -> Value {
    let keys: Vec<Key> = [spec.partition].into_iter().chain(spec.sort).collect();
    let typed =
        |key: &Key| json!({ "AttributeName": key.name, "AttributeType": key.kind.letter() });
    let role = |(key, role): (&Key, &&str)| json!({ "AttributeName": key.name, "KeyType": role });
    let mut properties = json!({
        "TableName": { "Fn::Sub": format!("${{TablePrefix}}{}", spec.name) },
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": true,
        "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": true },
        "AttributeDefinitions": keys.iter().map(typed).collect::<Vec<_>>(),
        "KeySchema": keys.iter().zip(&["HASH", "RANGE"]).map(role).collect::<Vec<_>>(),
    });
    if let Some(attribute) = spec.time_to_live {
        properties["TimeToLiveSpecification"] =
            json!({ "AttributeName": attribute, "Enabled": true });
    }
    json!({
        "Type": "AWS::DynamoDB::Table",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": properties,
    })
}

#[test]
fn the_template_makes_the_tables_that_the_services_want() {
    let template = parsed(include_str!("../../../deploy/aws/tables.json"));
    let resources = template["Resources"].as_object().unwrap();
    let made: Vec<_> = resources.values().cloned().collect();
    let mut wanted: Vec<_> = tables().iter().map(definition).collect();
    let name = |table: &Value| table["Properties"]["TableName"]["Fn::Sub"].to_string();
    wanted.sort_by_key(name);
    let mut made = made;
    made.sort_by_key(name);
    assert_eq!(made, wanted);
}

/// Table and action of every statement.
fn allowed(policy: &str) -> BTreeSet<(String, String)> {
    let policy = parsed(policy);
    let mut allowed = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        for resource in statement["Resource"].as_array().unwrap() {
            let table = resource.as_str().unwrap();
            let table = table.strip_prefix("arn:aws:dynamodb:REGION:ACCOUNT:table/PREFIX");
            for action in statement["Action"].as_array().unwrap() {
                let action = action.as_str().unwrap().strip_prefix("dynamodb:");
                allowed.insert((table.unwrap().to_owned(), action.unwrap().to_owned()));
            }
        }
    }
    allowed
}

/// No more and no less: what a service asks of items in a life of sessions, and what
/// it asks of tables when it starts.
#[tokio::test(start_paused = true)]
async fn the_policies_allow_what_the_services_ask_for_and_no_more() {
    let system = System::start().await;
    let mut people = People::arrive(&system).await;
    people.talk(Mix::AtOnce, 1).await;
    people.leave().await;
    let mut asked = system.asked();
    for spec in tables() {
        asked.insert((spec.name.to_owned(), "DescribeTable".to_owned()));
        if spec.time_to_live.is_some() {
            asked.insert((spec.name.to_owned(), "DescribeTimeToLive".to_owned()));
        }
    }
    let mut policies = allowed(include_str!("../../../deploy/aws/policy-history.json"));
    policies.extend(allowed(include_str!(
        "../../../deploy/aws/policy-presence.json"
    )));
    assert_eq!(policies, asked);
}

#[test]
fn each_service_may_touch_its_own_tables_only() {
    let of = |policy| -> BTreeSet<_> {
        let allowed = allowed(policy).into_iter();
        allowed.map(|(table, _)| table).collect()
    };
    let history = of(include_str!("../../../deploy/aws/policy-history.json"));
    let presence = of(include_str!("../../../deploy/aws/policy-presence.json"));
    assert!(history.is_disjoint(&presence));
    let mut all = history;
    all.extend(presence);
    assert_eq!(
        of(include_str!("../../../deploy/aws/policy-operator.json")),
        all
    );
}
