//! Jobs whose pods are processes that come to an end.

use serde_json::Value;
use setpoint_e2e::Cluster;

/// A Job whose pods run a shell command.
fn job(name: &str, spec: &str, restarts: &str, command: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {}\n  template:\n    spec:\n      \
         restartPolicy: {restarts}\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        \
         image: host\n        command: [sh, -c, {command:?}]\n",
        spec.replace('\n', "\n  ")
    )
}

fn ended(cluster: &Cluster, name: &str, condition: &str) -> Value {
    cluster.eventually(&format!("job {name} is {condition}"), || {
        let job = cluster.get(&["job", name]);
        let conditions = job["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.unwrap_or_default().into_iter();
        let found = conditions.find(|c| c["type"] == condition && c["status"] == "True");
        match found {
            Some(found) => {
                let mut status = job["status"].clone();
                status["found"] = found;
                Ok(status)
            }
            None => Err(format!("{}\n{}", job["status"], cluster.pods_table())),
        }
    })
}

#[test]
fn the_processes_of_jobs_run_to_their_end_and_are_counted_with_their_exit_codes() {
    let cluster = Cluster::start(2, 143);
    let indexed = "completions: 3\nparallelism: 2\ncompletionMode: Indexed";
    cluster.apply(&job(
        "sum",
        indexed,
        "Never",
        "echo index $JOB_COMPLETION_INDEX",
    ));
    let coded = "backoffLimit: 5\npodFailurePolicy:\n  rules:\n  \
        - {action: FailJob, onExitCodes: {operator: In, values: [42]}}";
    cluster.apply(&job("coded", coded, "Never", "exit 42"));
    let marker = cluster.dir().join("marker");
    let second_time = format!("test -f {0} || {{ touch {0}; exit 1; }}", marker.display());
    cluster.apply(&job("again", "backoffLimit: 3", "OnFailure", &second_time));

    let status = ended(&cluster, "sum", "Complete");
    assert_eq!(status["completedIndexes"], "0-2", "{status}");
    assert_eq!(
        (&status["succeeded"], &status["active"]),
        (&3.into(), &Value::Null)
    );
    let pods = cluster.pods("job-name=sum");
    let mut logs: Vec<String> = pods
        .iter()
        .map(|p| {
            let name = p["metadata"]["name"].as_str().unwrap_or_default();
            cluster.setpoint(["logs", name]).ok().trim().to_owned()
        })
        .collect();
    logs.sort();
    assert_eq!(
        logs,
        ["index 0", "index 1", "index 2"],
        "they stay for their logs"
    );

    let status = ended(&cluster, "coded", "Failed");
    assert_eq!(status["found"]["reason"], "PodFailurePolicy", "{status}");
    let message = status["found"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("failed with exit code 42"), "{message}");
    assert_eq!(status["failed"], 1, "{status}");

    let status = ended(&cluster, "again", "Complete");
    assert_eq!(
        (&status["succeeded"], &status["failed"]),
        (&1.into(), &Value::Null),
        "{status}"
    );

    cluster.setpoint(["delete", "job", "sum", "--wait"]).ok();
    cluster.eventually("its pods are gone with it", || {
        match cluster.pods("job-name=sum").len() {
            0 => Ok(()),
            n => Err(format!("{n} pods")),
        }
    });
}
