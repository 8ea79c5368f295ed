//! Whom a certificate names: URIs among its subject alternative names, in the manner of SPIFFE.
//!
//! | URI | who |
//! | --- | --- |
//! | `spiffe://DOMAIN/metasrv/admin` | an operator |
//! | `spiffe://DOMAIN/metasrv/replica` | a replica of metasrv |
//! | `spiffe://DOMAIN/metasrv/frontend` | a frontend |
//! | `spiffe://DOMAIN/metasrv/datanode/CLUSTER/ID` | this datanode; likewise `flownode` |
//!
//! The domain is the authority's to choose: whoever it signs for is trusted for what it says. A certificate may name several.

use tokio_rustls::rustls::pki_types::CertificateDer;

const SCHEME: &str = "spiffe://";
const PLACE: &str = "metasrv";

/// What a certificate says of its holder.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// What follows `spiffe://DOMAIN/metasrv/` in each of its URIs.
    names: Vec<String>,
}

impl Identity {
    /// Of a certificate that was checked before. One that says nothing names nobody.
    pub fn of(certificate: &CertificateDer<'_>) -> Identity {
        let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Identity::default() };
        Identity::named(parsed.valid_uri_names())
    }

    /// Of these URIs.
    pub fn named<'a>(uris: impl Iterator<Item = &'a str>) -> Identity {
        let ours = |uri: &str| {
            let (domain, path) = uri.strip_prefix(SCHEME)?.split_once('/')?;
            let name = path.strip_prefix(PLACE)?.strip_prefix('/')?;
            (!domain.is_empty() && !name.is_empty()).then(|| name.to_owned())
        };
        Identity { names: uris.filter_map(ours).collect() }
    }

    /// An operator.
    pub fn is_admin(&self) -> bool {
        self.names.iter().any(|name| name == "admin")
    }

    /// A replica of metasrv.
    pub fn is_replica(&self) -> bool {
        self.names.iter().any(|name| name == "replica")
    }

    /// A frontend.
    pub fn is_frontend(&self) -> bool {
        self.names.iter().any(|name| name == "frontend")
    }

    /// The node of this role, cluster and id.
    pub fn is_node(&self, role: &str, cluster: u64, id: u64) -> bool {
        let wanted = format!("{role}/{cluster}/{id}");
        self.names.contains(&wanted)
    }

    /// The URI of the node of this role, cluster and id, for a certificate that is made.
    pub fn uri_of_node(domain: &str, role: &str, cluster: u64, id: u64) -> String {
        Identity::uri(domain, &format!("{role}/{cluster}/{id}"))
    }

    /// The URI of this name: `admin`, `replica`, `frontend`.
    pub fn uri(domain: &str, name: &str) -> String {
        format!("{SCHEME}{domain}/{PLACE}/{name}")
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.names.is_empty() { f.write_str("nobody") } else { f.write_str(&self.names.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_whom_its_uris_name_and_nobody_else() {
        let node = Identity::uri_of_node("example.org", "datanode", 0, 7);
        assert_eq!(node, "spiffe://example.org/metasrv/datanode/0/7");
        let identity = Identity::named([node.as_str(), "https://example.org/metasrv/admin"].into_iter());
        assert!(identity.is_node("datanode", 0, 7));
        for (role, cluster, id) in
            [("datanode", 0, 8), ("datanode", 1, 7), ("flownode", 0, 7), ("datanode", 0, 77)]
        {
            assert!(!identity.is_node(role, cluster, id), "{role}/{cluster}/{id}");
        }
        assert!(!identity.is_admin() && !identity.is_replica() && !identity.is_frontend());
        assert_eq!(identity.to_string(), "datanode/0/7");
        let admin = Identity::named(["spiffe://x/metasrv/admin", "spiffe:///metasrv/replica"].into_iter());
        assert!(admin.is_admin() && !admin.is_replica(), "there is no domain in the second");
        let others = [
            "spiffe://x/metasrv/admins",
            "spiffe://x/admin",
            "spiffe://x/metasrvadmin",
            "spiffe://x/metasrv/",
        ];
        assert_eq!(Identity::named(others.into_iter().skip(1)), Identity::default());
        assert!(!Identity::named(others.into_iter()).is_admin());
        assert_eq!(Identity::default().to_string(), "nobody");
    }
}
