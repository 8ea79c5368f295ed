//! What is asked of etcd itself, over the HTTP gateway that each member has: no etcdctl is needed.

use serde_json::{Value, json};

use crate::replica::http_exchange;

/// The key that fills etcd up, `chaos-filler`, as the gateway wants it. Outside of metasrv's prefix.
const FILLER: &str = "Y2hhb3MtZmlsbGVy";

/// The key whose writing shows that etcd takes writes, `chaos-probe`.
const PROBE: &str = "Y2hhb3MtcHJvYmU=";

/// A member of etcd, by its address.
pub struct Gateway<'a>(pub &'a str);

impl Gateway<'_> {
    /// Whether this member leads etcd.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn leads(&self) -> Result<bool, String> {
        let status = self.call("/v3/maintenance/status", &json!({})).await?;
        Ok(status["leader"].is_string() && status["leader"] == status["header"]["member_id"])
    }

    /// Whether etcd takes a write.
    ///
    /// # Errors
    /// It does not; the text says why.
    pub async fn writes(&self) -> Result<(), String> {
        self.call("/v3/kv/put", &json!({ "key": PROBE, "value": "AA==" })).await.map(|_| ())
    }

    /// Writes so many bytes once more over the same key: the old versions stay until etcd is compacted.
    ///
    /// # Errors
    /// etcd refused it, when it is full among other reasons.
    pub async fn fill(&self, bytes: usize) -> Result<(), String> {
        let value = "QUFB".repeat(bytes / 3);
        self.call("/v3/kv/put", &json!({ "key": FILLER, "value": value })).await.map(|_| ())
    }

    /// Forgets every old version, the way an operator does it on a full etcd.
    ///
    /// # Errors
    /// etcd refused it.
    pub async fn compact(&self) -> Result<(), String> {
        self.call("/v3/kv/deleterange", &json!({ "key": FILLER })).await?;
        let status = self.call("/v3/maintenance/status", &json!({})).await?;
        let revision = status["header"]["revision"].clone();
        self.call("/v3/kv/compaction", &json!({ "revision": revision, "physical": true })).await.map(|_| ())
    }

    /// Gives the space of old versions back. This member serves nothing meanwhile.
    ///
    /// # Errors
    /// etcd refused it.
    pub async fn defragment(&self) -> Result<(), String> {
        self.call("/v3/maintenance/defragment", &json!({})).await.map(|_| ())
    }

    /// The alarms that are raised.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn alarms(&self) -> Result<Vec<Value>, String> {
        let answer = self.call("/v3/maintenance/alarm", &json!({ "action": "GET" })).await?;
        Ok(answer["alarms"].as_array().cloned().unwrap_or_default())
    }

    /// Takes every alarm back.
    ///
    /// # Errors
    /// etcd refused it.
    pub async fn disarm(&self) -> Result<(), String> {
        for alarm in self.alarms().await? {
            let request = json!({
                "action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": alarm["alarm"],
            });
            self.call("/v3/maintenance/alarm", &request).await?;
        }
        Ok(())
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value, String> {
        let page = http_exchange(self.0, "POST", path, &body.to_string()).await?;
        // The body may come in chunks, so that it is what stands between the outermost braces.
        let document = match (page.find("\r\n\r\n"), page.rfind('}')) {
            (Some(headers), Some(end)) => page
                .get(headers..=end)
                .and_then(|rest| rest.find('{').map(|start| &rest[start..]))
                .unwrap_or_default(),
            _ => "",
        };
        let value: Value =
            serde_json::from_str(document).map_err(|error| format!("{path}: {error}: {page}"))?;
        match value.get("error") {
            Some(error) => Err(format!("{path}: {error}")),
            None => Ok(value),
        }
    }
}
