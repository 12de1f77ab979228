//! How a hub's client calls files in its cache. The live harness of `xtask` takes this file, too.

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// Names a content as the hub does: weights by their SHA-256, all else as git does.
pub(crate) fn blob_name(name: &str, content: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if name.ends_with(".safetensors") {
        return hex(&Sha256::digest(content));
    }
    let header = format!("blob {}\0", content.len());
    hex(&Sha1::new().chain_update(header).chain_update(content).finalize())
}
