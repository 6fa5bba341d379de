//! Volume claims, from `apply` to the disk and back: the directory goes with the claim, and not before its pods.

use std::fs;
use std::path::{Path, PathBuf};

use setpoint_e2e::{Cluster, Started};

const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";

/// A pod that writes a line into its volume when it is started.
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: db}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: host\n    \
                   command: [sh, -c, 'echo run >> $SETPOINT_VOLUME_D/file; sleep 1000']\n    volumeMounts: [{name: d, mountPath: /setpoint-d}]\n  \
                   volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]\n";

/// Two pods with a claim each, which go with them.
const SET: &str = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  replicas: 2\n  serviceName: db\n  selector: {matchLabels: {app: db}}\n  \
         persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Delete}\n  template:\n    metadata: {labels: {app: db}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - {name: main, image: host, command: [sleep, '1000'], volumeMounts: [{name: d, mountPath: /setpoint-d}]}\n  \
         volumeClaimTemplates:\n  - metadata: {name: d}\n    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";

struct World {
    cluster: Cluster,
    claims: PathBuf,
}

impl World {
    fn start(second: u8) -> Self {
        let cluster = Cluster::start(1, second);
        let claims = cluster.agents()[0].data_dir.join("claims");
        Self { cluster, claims }
    }

    /// The directory of the claim of a name, when there is one.
    fn dir(&self, args: &[&str]) -> Option<PathBuf> {
        let claim = self.cluster.get(&[&["pvc"], args].concat());
        Some(self.claims.join(claim["metadata"]["uid"].as_str()?))
    }

    fn until_written(&self, dir: &Path) {
        self.cluster.eventually("the pod has written", || {
            match fs::read_to_string(dir.join("file")) {
                Ok(text) if text == "run\n" => Ok(()),
                found => Err(format!("{found:?}")),
            }
        });
    }

    /// Waits until nothing is left of claims that are gone, on disk and on record, but these.
    fn until_left(&self, expected: &[&Path]) {
        self.cluster.eventually("what is gone is removed", || {
            let entries = fs::read_dir(&self.claims).unwrap().map(|e| e.unwrap());
            let dirs = entries.filter(|e| e.file_type().unwrap().is_dir());
            let mut dirs: Vec<_> = dirs
                .map(|e| e.path())
                .filter(|path| !path.ends_with(".trash"))
                .collect();
            dirs.sort();
            let trash = fs::read_dir(self.claims.join(".trash"));
            let trash: Vec<_> = trash.into_iter().flatten().collect();
            let stones = self.stones();
            if dirs == expected && trash.is_empty() && stones.is_empty() {
                Ok(())
            } else {
                Err(format!("{dirs:?} {trash:?} {stones}"))
            }
        });
    }

    fn stones(&self) -> String {
        let range = [
            "get",
            "--prefix",
            "--keys-only",
            "/setpoint/work/n1/tombstones/",
        ];
        self.cluster.etcdctl(&range).trim().to_owned()
    }
}

#[test]
fn a_deleted_claim_frees_its_directory_when_its_last_pod_has_gone() {
    let w = World::start(151);
    w.cluster.apply(&format!("{CLAIM}---\n{POD}"));
    w.cluster.pod_in_phase("db", "Running");
    let first = w.dir(&["data"]).unwrap();
    w.until_written(&first);
    w.cluster.setpoint(["delete", "pvc", "data"]).ok();
    w.cluster
        .eventually("the node is told", || match w.stones() {
            stones if stones.is_empty() => Err("no tombstone".into()),
            stones => Ok(stones),
        });
    w.cluster.apply(CLAIM);
    let second = w.dir(&["data"]).unwrap();
    assert_ne!(first, second);
    // The node is away and comes back; the pod has gone on.
    let agent = w.cluster.agents()[0].clone();
    w.cluster.kill_agent(&agent);
    let next = w
        .cluster
        .command()
        .args(["agent", "--node-name", "n1", "--listen", "127.0.0.1:0"])
        .args(["--pod-cidr", "127.151.1.0/24", "--lease-ttl", "20s"])
        .args(["--stop-pods-on-exit", "--data-dir"])
        .arg(&agent.data_dir)
        .spawn()
        .unwrap();
    let _next = Started(next);
    // What comes after the tombstone is done: so the tombstone has been looked at.
    let probe = POD
        .replace("name: db", "name: probe")
        .replace("claimName: data", "claimName: probe");
    let claim = CLAIM.replace("name: data", "name: probe");
    w.cluster.apply(&format!("{claim}---\n{probe}"));
    w.cluster.pod_in_phase("probe", "Running");
    w.until_written(&w.dir(&["probe"]).unwrap());
    w.cluster
        .setpoint(["delete", "pod", "probe", "--wait"])
        .ok();
    let gone = w.dir(&["probe"]).unwrap();
    w.cluster.setpoint(["delete", "pvc", "probe"]).ok();
    w.cluster
        .eventually("the probe's directory is removed", || {
            if gone.exists() {
                Err(w.stones())
            } else {
                Ok(())
            }
        });
    w.until_written(&first);

    w.cluster.setpoint(["delete", "pod", "db", "--wait"]).ok();
    w.until_left(&[]);
    w.cluster.apply(POD);
    w.cluster.pod_in_phase("db", "Running");
    w.until_written(&second);
    w.until_left(&[&second]);
}

#[test]
fn claims_that_go_with_their_namespace_or_their_set_free_their_directories() {
    let w = World::start(152);
    w.cluster.setpoint(["create", "namespace", "shop"]).ok();
    let manifest =
        format!("{CLAIM}---\n{POD}").replace("metadata: {", "metadata: {namespace: shop, ");
    w.cluster.apply(&manifest);
    let dir = w.dir(&["data", "-n", "shop"]).unwrap();
    w.until_written(&dir);
    w.cluster.apply(SET);
    w.cluster.ready_pods("app=db", 2);
    let mut dirs = [w.dir(&["d-db-0"]).unwrap(), w.dir(&["d-db-1"]).unwrap()];
    let first = dirs[0].clone();
    let mut all = [dir.clone(), dirs[0].clone(), dirs[1].clone()];
    all.sort();
    w.until_left(&all.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    w.cluster.setpoint(["delete", "namespace", "shop"]).ok();
    dirs.sort();
    w.until_left(&[&dirs[0], &dirs[1]]);
    w.cluster.apply(&SET.replace("replicas: 2", "replicas: 1"));
    w.until_left(&[&first]);
    w.cluster.setpoint(["delete", "statefulset", "db"]).ok();
    w.until_left(&[]);
}
