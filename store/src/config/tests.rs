use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

const FILE: &str = "\
currentContext: dev
contexts:
  - name: dev
    endpoints: [http://127.0.0.1:1]
  - name: prod   # the real one
    endpoints:
      - https://etcd-1:2379
      - https://etcd-2:2379
    prefix: /prod/
    caFile: ca.pem
    certFile: /abs/client.pem
    keyFile: client-key.pem
";

fn file() -> ConfigFile {
    parse(FILE).unwrap()
}

fn parse(text: &str) -> Result<ConfigFile, String> {
    ConfigFile::parse(text, Path::new("/etc/sp/config.yaml")).map_err(|error| error.to_string())
}

fn resolved(
    flags: Flags,
    env: &[(&str, &str)],
    file: Option<&ConfigFile>,
) -> Result<Connection, String> {
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    resolve(
        &flags,
        |name| env.get(name).map(|value| (*value).to_owned()),
        file,
    )
    .map_err(|error| error.to_string())
}

#[test]
fn without_anything_it_is_the_local_etcd() {
    let connection = resolved(Flags::default(), &[], None).unwrap();
    assert_eq!(connection.options.endpoints, [DEFAULT_ENDPOINT]);
    assert_eq!(
        (connection.prefix.as_str(), connection.source.as_str()),
        ("/setpoint", "default")
    );
    assert!(connection.options.tls.is_none() && connection.options.user.is_none());
}

#[test]
fn flags_go_before_environment_before_file() {
    let file = file();
    let env = [
        ("SETPOINT_ENDPOINTS", "http://env:1, http://env:2"),
        ("SETPOINT_PREFIX", "/env"),
    ];
    let flags = Flags {
        endpoints: vec!["http://flag:1,http://flag:2".into()],
        ..Flags::default()
    };

    let connection = resolved(flags, &env, Some(&file)).unwrap();
    assert_eq!(
        connection.options.endpoints,
        ["http://flag:1", "http://flag:2"]
    );
    assert_eq!(
        (connection.prefix.as_str(), connection.source.as_str()),
        ("/env", "--endpoints")
    );

    let connection = resolved(Flags::default(), &env, Some(&file)).unwrap();
    assert_eq!(
        connection.options.endpoints,
        ["http://env:1", "http://env:2"]
    );
    assert_eq!(connection.source, "SETPOINT_ENDPOINTS");

    let connection = resolved(
        Flags::default(),
        &[("SETPOINT_ENDPOINTS", " ")],
        Some(&file),
    )
    .unwrap();
    assert_eq!(connection.options.endpoints, ["http://127.0.0.1:1"]);
    assert_eq!(connection.source, "context dev of /etc/sp/config.yaml");
}

#[test]
fn a_named_context_brings_its_certificates() {
    let file = file();
    let flags = Flags {
        context: Some("prod".into()),
        ..Flags::default()
    };
    let connection = resolved(flags, &[("SETPOINT_CONTEXT", "dev")], Some(&file)).unwrap();
    assert_eq!(connection.options.endpoints.len(), 2);
    assert_eq!(connection.prefix, "/prod");
    let tls = connection.options.tls.unwrap();
    assert_eq!(format!("{:?}", tls.ca), r#"File("/etc/sp/ca.pem")"#);
    assert_eq!(
        format!("{:?}", tls.client),
        r#"Some((File("/abs/client.pem"), File("/etc/sp/client-key.pem")))"#,
        "paths are relative to the file"
    );
}

#[test]
fn secrets_of_the_current_context_do_not_follow_other_endpoints() {
    let mut file = file();
    file.current_context = Some("prod".into());
    let elsewhere = Flags {
        endpoints: vec!["http://elsewhere:1".into()],
        ..Flags::default()
    };
    let connection = resolved(elsewhere.clone(), &[], Some(&file)).unwrap();
    assert!(connection.options.tls.is_none());
    assert_eq!(connection.prefix, "/setpoint");
    let named = Flags {
        context: Some("prod".into()),
        ..elsewhere
    };
    assert!(
        resolved(named, &[], Some(&file))
            .unwrap()
            .options
            .tls
            .is_some()
    );
}

#[test]
fn users_need_a_password_from_somewhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "from-file\n").unwrap();
    let user = |user: &str| Flags {
        user: Some(user.into()),
        ..Flags::default()
    };
    let password = |flags, env: &[_]| {
        resolved(flags, env, None).map(|connection| connection.options.user.unwrap().password)
    };

    assert_eq!(password(user("root:pa:ss"), &[]).unwrap(), "pa:ss");
    assert_eq!(
        password(user("root"), &[("SETPOINT_PASSWORD", "env")]).unwrap(),
        "env"
    );
    let with_file = Flags {
        password_file: Some(path),
        ..user("root")
    };
    assert_eq!(
        password(with_file, &[("SETPOINT_PASSWORD", "env")]).unwrap(),
        "from-file"
    );
    assert!(
        password(user("root"), &[])
            .unwrap_err()
            .contains("the password is missing")
    );
    let missing = Flags {
        password_file: Some(PathBuf::from("/nonexistent/password")),
        ..user("root")
    };
    assert!(
        password(missing, &[])
            .unwrap_err()
            .contains("/nonexistent/password cannot be read")
    );
}

#[test]
fn halves_of_certificates_are_refused() {
    for (flags, message) in [
        (
            Flags {
                cert: Some("c".into()),
                ..Flags::default()
            },
            "its key is missing",
        ),
        (
            Flags {
                key: Some("k".into()),
                ..Flags::default()
            },
            "its certificate is missing",
        ),
        (
            Flags {
                cert: Some("c".into()),
                key: Some("k".into()),
                ..Flags::default()
            },
            "the CA certificate is missing",
        ),
        (
            Flags {
                prefix: Some("setpoint".into()),
                ..Flags::default()
            },
            "must begin with a slash",
        ),
        (
            Flags {
                prefix: Some("//".into()),
                ..Flags::default()
            },
            "must not be empty",
        ),
        (
            Flags {
                prefix: Some("/a b".into()),
                ..Flags::default()
            },
            "must be a plain path",
        ),
        (
            Flags {
                context: Some("prdo".into()),
                ..Flags::default()
            },
            "no context \"prdo\" in /etc/sp/config.yaml (it has dev, prod)",
        ),
    ] {
        let error = resolved(flags, &[], Some(&file())).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    let named = Flags {
        context: Some("x".into()),
        ..Flags::default()
    };
    assert!(
        resolved(named, &[], None)
            .unwrap_err()
            .contains("in any configuration file")
    );
}

#[test]
fn a_malformed_file_is_named_with_its_line() {
    for (text, message) in [
        (
            "contexts:\n  - name: a\n    endpoint: x\n",
            "/etc/sp/config.yaml:3:5: contexts[0]: unknown field `endpoint`",
        ),
        (
            "contexts:\n  - name: a\n  - name: \"a\"\n",
            "/etc/sp/config.yaml:3: there are two contexts named \"a\"",
        ),
        (
            "currentContext: b\ncontexts:\n  - name: a\n",
            "/etc/sp/config.yaml:1: currentContext: there is no context \"b\"",
        ),
        ("contexts: [\n", "/etc/sp/config.yaml:2:1: "),
        ("contexts:\n  - endpoints: []\n", "missing field `name`"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    assert_eq!(parse("# nothing yet\n").unwrap().contexts, []);
    let several = parse("contexts:\n  - name: a\n  - name: b\n").unwrap();
    assert!(
        resolved(Flags::default(), &[], Some(&several))
            .unwrap_err()
            .contains("several contexts (a, b)")
    );
    let one = parse("contexts:\n  - name: a\n    endpoints: [http://a:1]\n").unwrap();
    assert_eq!(
        resolved(Flags::default(), &[], Some(&one))
            .unwrap()
            .options
            .endpoints,
        ["http://a:1"]
    );
}

#[test]
fn the_file_is_where_one_expects_it() {
    let path = |flags: &Flags, env: &[(&str, &str)]| {
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        config_path(flags, |name| env.get(name).map(|value| (*value).to_owned()))
    };
    let none = Flags::default();
    assert_eq!(
        path(&none, &[("HOME", "/h")]),
        Some((PathBuf::from("/h/.config/setpoint/config.yaml"), false))
    );
    assert_eq!(
        path(&none, &[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]),
        Some((PathBuf::from("/x/setpoint/config.yaml"), false))
    );
    assert_eq!(
        path(&none, &[("SETPOINT_CONFIG", "/c")]),
        Some((PathBuf::from("/c"), true))
    );
    let flag = Flags {
        config: Some(PathBuf::from("/f")),
        ..Flags::default()
    };
    assert_eq!(
        path(&flag, &[("SETPOINT_CONFIG", "/c")]),
        Some((PathBuf::from("/f"), true))
    );
    assert_eq!(path(&none, &[]), None);
}
