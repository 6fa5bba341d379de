//! Certificates of a test's own authority.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// An authority, and the certificate of a server on 127.0.0.1.
pub struct Certs {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certs {
    /// Makes an authority and writes the server's files.
    pub fn write(directory: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("setpoint test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let authority = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        let certs = Self {
            directory: directory.to_owned(),
            authority,
        };

        certs.put("ca.pem", &certs.ca_pem());
        certs.server("server", &["127.0.0.1", "localhost"]);
        certs
    }

    /// The certificate and key of a server, as files.
    pub fn server(&self, file: &str, hosts: &[&str]) -> (PathBuf, PathBuf) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name = name(file);
        // etcd connects to itself with the same certificate.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (certificate, key) = self.sign(params);
        (
            self.put(&format!("{file}.pem"), &certificate),
            self.put(&format!("{file}-key.pem"), &key),
        )
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// A client certificate, with its key, that bears the user as its common name.
    pub fn client(&self, user: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// The authority's certificate, and a client's certificate and key, as files.
    pub fn files(&self, user: &str) -> (PathBuf, PathBuf, PathBuf) {
        let (certificate, key) = self.client(user);
        (
            self.directory.join("ca.pem"),
            self.put(&format!("{user}.pem"), &certificate),
            self.put(&format!("{user}-key.pem"), &key),
        )
    }

    pub(super) fn server_args(&self) -> [String; 4] {
        let file = |name: &str| self.directory.join(name).display().to_string();
        [
            format!("--cert-file={}", file("server.pem")),
            format!("--key-file={}", file("server-key.pem")),
            format!("--trusted-ca-file={}", file("ca.pem")),
            "--client-cert-auth".to_owned(),
        ]
    }

    fn sign(&self, params: CertificateParams) -> (String, String) {
        let key = key();
        let certificate = params
            .signed_by(&key, &self.authority)
            .expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).expect("a file in the test's directory");
        path
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
