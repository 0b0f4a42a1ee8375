//! The users of the load, with their tokens, and the flags that let them send as
//! fast as they can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::super::server::{ANY_PORT, token};

const USERS: [&str; 4] = ["alice", "bob", "carol", "erin"];

/// Tokens, and the key that they are signed with.
pub(super) struct Users {
    tokens: BTreeMap<&'static str, MetadataValue<Ascii>>,
    key: PathBuf,
}

impl Users {
    /// Makes the key, in `folder/data`, and a token for each.
    pub(super) async fn make(program: &Path, folder: &Path) -> Result<Self> {
        let data = folder.join("data");
        let mut tokens = BTreeMap::new();
        for user in USERS {
            let token = token(program, &data, user).await?;
            tokens.insert(user, format!("Bearer {token}").parse()?);
        }
        Ok(Self {
            tokens,
            key: data.join("development-key.pem"),
        })
    }

    /// A call of a user.
    pub(super) fn request<T>(&self, user: &str, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let token = self.tokens.get(user).context("a user without a token")?;
        request
            .metadata_mut()
            .insert("authorization", token.clone());
        Ok(request)
    }

    /// Lets these users in at another data directory.
    pub(super) fn admit_to(&self, data: &Path) -> Result<()> {
        let name = self.key.file_name().context("the key has no name")?;
        // With its mode, without which it is refused.
        std::fs::copy(&self.key, data.join(name)).context("cannot copy the key")?;
        Ok(())
    }
}

/// How the program is started.
pub(super) fn arguments(data: &str) -> Vec<&str> {
    let mut arguments = vec!["serve", "--data", data];
    for listen in ["--grpc-listen", "--web-listen", "--admin-listen"] {
        arguments.extend([listen, ANY_PORT]);
    }
    arguments.extend(["--sends", "1000000/1000000", "--calls", "1000000/1000000"]);
    arguments
}
