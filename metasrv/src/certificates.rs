//! Certificates for trying out: an authority of one's own, and what it signs. `metactl cert dev` writes them; in
//! production they come from whoever signs the others of the house.
//!
//! The authority is its key, of which its name is made: whoever has the key signs on, in the same name, so that a second run adds
//! to the first; and two authorities are told apart.

use std::net::IpAddr;
use std::ops::Range;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The authority's name, and a part of its key follows.
const NAME: &str = "metasrv development authority";

/// Why a certificate is not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A name that is none.
    #[error("{0:?} can stand in no certificate")]
    Name(String),
    /// A key is not one, or nothing can be signed with it.
    #[error("a key or certificate: {0}")]
    Made(#[from] rcgen::Error),
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key. For its holder alone.
    pub key: String,
}

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Whose it is, for people.
    pub name: &'a str,
    /// Host names and addresses at which its holder is reached.
    pub hosts: &'a [String],
    /// Whom it names: see docs/tls.md.
    pub uris: &'a [String],
    /// From when until when.
    pub valid: Range<SystemTime>,
}

impl Authority {
    /// A new one, valid for this time; with its certificate and key.
    ///
    /// # Errors
    /// There are no random numbers to make a key of.
    pub fn new(valid: Range<SystemTime>) -> Result<(Authority, Issued), CertificateError> {
        let key = KeyPair::generate()?;
        let parameters = authority(&key, valid);
        let made = parameters.self_signed(&key)?;
        let issued = Issued { certificate: made.pem(), key: key.serialize_pem() };
        Ok((Authority { issuer: Issuer::new(parameters, key) }, issued))
    }

    /// The one that this key is of.
    ///
    /// # Errors
    /// It is no key.
    pub fn of_key(key: &str) -> Result<Authority, CertificateError> {
        let now = SystemTime::now();
        let key = KeyPair::from_pem(key)?;
        // Of an authority that signs, its name and its key matter, and nothing else.
        Ok(Authority { issuer: Issuer::new(authority(&key, now..now), key) })
    }

    /// Signs a certificate, for a key that is made with it.
    ///
    /// # Errors
    /// A name that can stand in no certificate.
    pub fn issue(&self, wanted: &Wanted<'_>) -> Result<Issued, CertificateError> {
        let mut parameters = parameters(wanted.name, wanted.valid.clone());
        for host in wanted.hosts {
            parameters.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(text(host)?),
            });
        }
        for uri in wanted.uris {
            parameters.subject_alt_names.push(SanType::URI(text(uri)?));
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Replicas connect to one another, so that each is server and client.
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let made = parameters.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: made.pem(), key: key.serialize_pem() })
    }
}

fn text(text: &str) -> Result<rcgen::string::Ia5String, CertificateError> {
    text.try_into().map_err(|_| CertificateError::Name(text.to_owned()))
}

fn authority(key: &KeyPair, valid: Range<SystemTime>) -> CertificateParams {
    let part: String =
        rcgen::PublicKeyData::der_bytes(key).iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut parameters = parameters(&format!("{NAME} {part}"), valid);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn parameters(name: &str, valid: Range<SystemTime>) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = valid.start.into();
    parameters.not_after = valid.end.into();
    parameters
}
