use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use setpoint_apis::{ObjectKey, ResourceList, document};

use super::*;
use crate::layout::DataDir;

struct World {
    _tmp: tempfile::TempDir,
    dir: PodDir,
    content: Content,
    allocatable: ResourceList,
}

fn world() -> World {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::new(tmp.path()).pod("u", 1);
    let world = World {
        _tmp: tmp,
        dir,
        content: Content::default(),
        allocatable: ResourceList::new(),
    };
    world.config("{a: '1', b: '2'}");
    let secret: Secret = document::decode(
        b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {p: hunter2}\n",
    )
    .unwrap();
    world
        .content
        .put_secret(ObjectKey::namespaced("ns", "s"), Some(secret));
    world
}

impl World {
    fn config(&self, data: &str) {
        let text =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {data}\n");
        let object: ConfigMap = document::decode(text.as_bytes()).unwrap();
        self.content
            .put_config_map(ObjectKey::namespaced("ns", "c"), Some(object));
    }

    fn claim(&self, uid: &str) {
        let text = format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data-p, uid: {uid}}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
        );
        let claim: PersistentVolumeClaim = document::decode(text.as_bytes()).unwrap();
        self.content
            .put_claim(ObjectKey::namespaced("ns", "data-p"), Some(claim));
    }

    fn drop_claim(&self) {
        self.content
            .put_claim(ObjectKey::namespaced("ns", "data-p"), None);
    }

    fn prepare(&self, pod: &Pod) -> Result<Vec<PreparedVolume>, VolumeError> {
        let facts = PodFacts {
            pod,
            uid: "u",
            node_name: "n",
            host_ip: "h",
            pod_ip: "p",
            allocatable: &self.allocatable,
        };
        prepare(&self.dir, &facts, &self.content)
    }

    fn text(&self, volume: &str, path: &str) -> String {
        fs::read_to_string(self.dir.volume(volume).join(path)).unwrap()
    }
}

fn pod(volumes: &str, mounts: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: ns, labels: {{tier: x}}}}\nspec:\n  containers:\n  - {{name: c, image: host, command: [x], volumeMounts: {mounts}}}\n  volumes: {volumes}\n"
    );
    document::decode_value::<Pod>(text.as_bytes()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn content_becomes_files_with_items_and_modes() {
    let w = world();
    let pod = pod(
        "[{name: all, configMap: {name: c}}, {name: some, configMap: {name: c, defaultMode: 0400, items: [{key: a, path: x/y, mode: 0640}, {key: b, path: z}]}}, \
          {name: sec, secret: {secretName: s}}, {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}, \
          {name: mix, projected: {sources: [{configMap: {name: c, items: [{key: a, path: cm/a}]}}, {secret: {name: s}}, {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]}}]",
        "[]",
    );
    let prepared = w.prepare(&pod).unwrap();
    assert!(prepared.iter().all(|v| v.read_only && v.degraded.is_none()));
    assert_eq!(w.text("all", "a") + &w.text("all", "b"), "12");
    assert_eq!(w.text("some", "x/y"), "1");
    assert_eq!(mode(&w.dir.volume("some").join("x/y")), 0o640);
    assert_eq!(mode(&w.dir.volume("some").join("z")), 0o400);
    assert_eq!(w.text("sec", "p"), "hunter2");
    assert_eq!(w.text("down", "labels"), "tier=\"x\"");
    assert_eq!(
        w.text("mix", "cm/a") + &w.text("mix", "p") + &w.text("mix", "name"),
        "1hunter2p"
    );
}

#[test]
fn a_change_is_swapped_in_whole_and_no_change_touches_nothing() {
    let w = world();
    let pod = pod("[{name: v, configMap: {name: c}}]", "[]");
    w.prepare(&pod).unwrap();
    let before = fs::read_link(w.dir.volume("v").join("..data")).unwrap();
    w.prepare(&pod).unwrap();
    assert_eq!(
        fs::read_link(w.dir.volume("v").join("..data")).unwrap(),
        before
    );
    w.config("{a: new, c: '3'}");
    w.prepare(&pod).unwrap();
    assert_ne!(
        fs::read_link(w.dir.volume("v").join("..data")).unwrap(),
        before
    );
    assert_eq!(w.text("v", "a") + &w.text("v", "c"), "new3");
    let mut names: Vec<_> = fs::read_dir(w.dir.volume("v"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["..data", "..set-2", "a", "c"],
        "the old set and the old name are gone"
    );
}

#[test]
fn missing_content_is_named_unless_it_is_optional() {
    let w = world();
    let failure = |volumes: &str| w.prepare(&pod(volumes, "[]")).unwrap_err().reason();
    assert_eq!(
        failure("[{name: v, configMap: {name: gone}}]"),
        "volume \"v\": configmap \"gone\" not found"
    );
    assert_eq!(
        failure("[{name: v, secret: {secretName: s, items: [{key: q, path: q}]}}]"),
        "volume \"v\": couldn't find key q in Secret ns/s"
    );
    assert!(failure("[{name: v, nfs: {server: a, path: /b}}]").contains("nfs are not supported"));
    let optional = "[{name: v, configMap: {name: gone, optional: true}}, {name: w, configMap: {name: c, optional: true, items: [{key: q, path: q}]}}]";
    w.prepare(&pod(optional, "[]")).unwrap();
    assert!(w.dir.volume("v").is_dir());
}

#[test]
fn paths_that_lead_out_are_refused() {
    let w = world();
    for path in ["../x", "/etc/x", "a/../../x", "..data", ""] {
        let result = w.prepare(&pod(
            &format!("[{{name: v, configMap: {{name: c, items: [{{key: a, path: '{path}'}}]}}}}]"),
            "[]",
        ));
        assert!(
            matches!(
                result,
                Err(VolumeError {
                    source: VolumeProblem::Escapes(_),
                    ..
                })
            ),
            "{path}"
        );
    }
}

#[test]
fn an_empty_dir_is_kept_and_goes_with_the_pod() {
    let w = world();
    let pod = pod(
        "[{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]",
        "[]",
    );
    let prepared = w.prepare(&pod).unwrap();
    fs::write(w.dir.volume("d").join("f"), "kept").unwrap();
    fs::write(w.dir.volume("m").join("f"), "kept").unwrap();
    assert_eq!(mode(&w.dir.volume("d")), 0o777);
    w.prepare(&pod).unwrap();
    assert_eq!(w.text("d", "f") + &w.text("m", "f"), "keptkept");
    if prepared[1].degraded.is_none() {
        assert!(
            fs::write(w.dir.volume("m").join("big"), vec![0; 2 << 20]).is_err(),
            "the size limit holds in memory"
        );
    }
    remove_pod_dir(&w.dir).unwrap();
    assert!(!w.dir.path().exists());
    remove_pod_dir(&w.dir).unwrap();
}

#[test]
fn host_paths_are_checked_by_type() {
    let w = world();
    let base = w._tmp.path().join("host");
    let prepare = |name: &str, kind: &str| {
        w.prepare(&pod(
            &format!(
                "[{{name: h, hostPath: {{path: {}, type: '{kind}'}}}}]",
                base.join(name).display()
            ),
            "[]",
        ))
    };
    assert!(prepare("d", "Directory").is_err());
    prepare("d", "DirectoryOrCreate").unwrap();
    prepare("d", "Directory").unwrap();
    prepare("d/f", "FileOrCreate").unwrap();
    prepare("d/f", "File").unwrap();
    for kind in ["Directory", "Socket", "CharDevice", "BlockDevice"] {
        assert!(prepare("d/f", kind).is_err(), "{kind}");
    }
    assert_eq!(prepare("d/f", "").unwrap()[0].path, base.join("d/f"));
    let words = |name: &str, kind: &str| prepare(name, kind).unwrap_err().reason();
    let at = |name: &str| base.join(name).display().to_string();
    assert_eq!(
        words("d/f", "Directory"),
        format!(
            "volume \"h\": hostPath {}: type Directory is wanted, and there is a file",
            at("d/f")
        )
    );
    assert!(words("d", "File").ends_with("type File is wanted, and there is a directory"));
    assert_eq!(
        words("e", "Socket"),
        format!(
            "volume \"h\": hostPath {}: type Socket is wanted, and there is nothing",
            at("e")
        )
    );
}

#[test]
fn mounts_resolve_sub_paths_inside_their_volume() {
    let w = world();
    let pod = pod(
        "[{name: d, emptyDir: {}}, {name: conf, configMap: {name: c}}]",
        "[{name: d, mountPath: /srv/in/ner, subPath: deep/er}, {name: d, mountPath: /srv, subPathExpr: of-$(NAME)}, {name: conf, mountPath: /etc/a, subPath: a}]",
    );
    let volumes = w.prepare(&pod).unwrap();
    let env = [("NAME".to_owned(), "p".to_owned())];
    let mounts = mounts(&pod.spec.containers[0], &volumes, &env).unwrap();
    let seen: Vec<_> = mounts
        .iter()
        .map(|m| (m.target.to_str().unwrap(), m.read_only))
        .collect();
    assert_eq!(
        seen,
        [("/etc/a", true), ("/srv", false), ("/srv/in/ner", false)]
    );
    assert!(
        mounts[0].source.is_file(),
        "one file of the volume, as it is now"
    );
    assert!(mounts[1].source.ends_with("d/of-p") && mounts[2].source.ends_with("d/deep/er"));
    std::os::unix::fs::symlink("/etc", w.dir.volume("d").join("out")).unwrap();
    for bad in [
        "{name: d, mountPath: /x, subPath: ../y}",
        "{name: d, mountPath: /x, subPath: out}",
        "{name: d, mountPath: rel}",
        "{name: d, mountPath: /}",
        "{name: nope, mountPath: /x}",
    ] {
        let pod = super::tests::pod("[{name: d, emptyDir: {}}]", &format!("[{bad}]"));
        assert!(
            super::mounts(&pod.spec.containers[0], &volumes, &env).is_err(),
            "{bad}"
        );
    }
    assert_eq!(variable_name("my-data.x"), "SETPOINT_VOLUME_MY_DATA_X");
}

#[test]
fn a_claim_is_a_directory_that_outlives_its_pods_and_belongs_to_one_uid() {
    let w = world();
    let volumes = |read_only: bool| {
        format!(
            "[{{name: d, persistentVolumeClaim: {{claimName: data-p, readOnly: {read_only}}}}}]"
        )
    };
    let (writes, reads) = (pod(&volumes(false), "[]"), pod(&volumes(true), "[]"));
    let missing = w.prepare(&writes).unwrap_err().reason();
    assert!(
        missing.starts_with("volume \"d\": ") && missing.contains("data-p"),
        "{missing}"
    );
    w.claim("u-1");
    let first = w.prepare(&writes).unwrap().remove(0);
    assert_eq!(first.path, w.dir.data().claim("u-1"));
    assert_eq!((mode(&first.path), first.read_only), (0o777, false));
    fs::write(first.path.join("file"), "kept").unwrap();
    fs::set_permissions(&first.path, fs::Permissions::from_mode(0o700)).unwrap();
    remove_pod_dir(&w.dir).unwrap();
    let again = w.prepare(&reads).unwrap().remove(0);
    assert_eq!((&again.path, again.read_only), (&first.path, true));
    assert_eq!(fs::read_to_string(again.path.join("file")).unwrap(), "kept");
    assert_eq!(mode(&again.path), 0o700, "it is the pods' own by now");
    w.claim("u-2");
    let same = w.prepare(&writes).unwrap().remove(0);
    assert_eq!(same.path, first.path, "what runs keeps what it began with");
    w.drop_claim();
    let same = w.prepare(&writes).unwrap().remove(0);
    assert_eq!(same.path, first.path);
    remove_pod_dir(&w.dir).unwrap();
    assert!(w.prepare(&writes).is_err());
    w.claim("u-2");
    let other = w.prepare(&writes).unwrap().remove(0);
    assert_ne!(other.path, first.path);
    assert_eq!(fs::read_dir(&other.path).unwrap().count(), 0);
}

#[test]
fn a_link_that_is_no_claims_directory_is_not_followed() {
    let w = world();
    w.claim("u-1");
    let outside = w.dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(w.dir.path().join("volumes")).unwrap();
    let pod = pod(
        "[{name: d, persistentVolumeClaim: {claimName: data-p}}]",
        "[]",
    );
    for bad in [outside.as_path(), Path::new("../../../claims/../../etc")] {
        std::os::unix::fs::symlink(bad, w.dir.volume("d")).unwrap();
        assert!(w.prepare(&pod).is_err(), "{bad:?}");
        fs::remove_file(w.dir.volume("d")).unwrap();
    }
    assert!(w.prepare(&pod).is_ok());
}
