//! That what end-to-end runs do to DynamoDB Local does what they mean by it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Data, DynamoDbLocal, call};

const TABLE: &str = r#"{"TableName":"kept","BillingMode":"PAY_PER_REQUEST",
    "AttributeDefinitions":[{"AttributeName":"k","AttributeType":"S"}],
    "KeySchema":[{"AttributeName":"k","KeyType":"HASH"}]}"#;
const ITEM: &str = r#"{"TableName":"kept","Item":{"k":{"S":"key"},"v":{"S":"what was put"}}}"#;
const KEY: &str = r#"{"TableName":"kept","Key":{"k":{"S":"key"}},"ConsistentRead":true}"#;

/// Pauses it and kills it; what was put is still there.
pub(in super::super) async fn run(program: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let data = Data::Folder(folder.path().to_path_buf());
    let mut server = DynamoDbLocal::start(program, &data, 0).await?;
    for (operation, body) in [("CreateTable", TABLE), ("PutItem", ITEM)] {
        let (status, answer) = call(server.address, operation, body).await?;
        ensure!(status == 200, "{operation} is answered {answer}");
    }
    server.pause().await?;
    ensure!(!server.answers().await, "it answers while it is paused");
    server.go_on().await?;
    server.answering().await.context("after a pause")?;
    server.kill().await?;
    ensure!(!server.answers().await, "it answers after it was killed");
    server.start_again().await?;
    let (_, answer) = call(server.address, "GetItem", KEY).await?;
    ensure!(
        answer.contains("what was put"),
        "it has forgotten: {answer}"
    );
    server.stop().await
}
