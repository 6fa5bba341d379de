//! Every manifest that the repository ships does what its README says.

use setpoint_e2e::Cluster;

#[test]
fn every_example_ends_as_its_table_says() {
    let cluster = Cluster::start(2, 111);
    let folder = setpoint_e2e::repository().join("manifests");
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let rows: Vec<(String, String)> = table
        .lines()
        .filter_map(|l| {
            let cells: Vec<&str> = l.trim_matches('|').split('|').map(str::trim).collect();
            let file = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((file.to_owned(), (*cells.get(2)?).to_owned()))
        })
        .collect();
    let files: usize = std::fs::read_dir(folder.join("examples")).unwrap().count();
    assert_eq!(
        rows.len(),
        files + 1,
        "the table names every file, and demo/"
    );
    for (file, end) in rows {
        let path = folder.join(&file);
        cluster
            .setpoint(["apply", "-f", &path.to_string_lossy()])
            .ok();
        let applied = cluster
            .setpoint(["get", "-o", "json", "-f", &path.to_string_lossy()])
            .ok();
        let applied: serde_json::Value = serde_json::from_str(&applied).unwrap();
        let objects = match applied["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![applied],
        };
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            match object["kind"].as_str().unwrap() {
                "Deployment" => {
                    assert_eq!(end, "Deployment available", "{file}");
                    cluster
                        .setpoint([
                            "wait",
                            "--for=condition=Available",
                            "--timeout=90s",
                            &format!("deployment/{name}"),
                        ])
                        .ok();
                }
                "Pod" => {
                    let phase = end.split(',').next().unwrap();
                    let pod = cluster.pod_in_phase(name, phase);
                    if end.contains("Ready") {
                        cluster
                            .setpoint([
                                "wait",
                                "--for=condition=Ready",
                                "--timeout=90s",
                                &format!("pod/{name}"),
                            ])
                            .ok();
                    }
                    assert_eq!(
                        pod["status"]["containerStatuses"]
                            .as_array()
                            .map_or(0, |c| {
                                c.iter().filter(|c| c["restartCount"] != 0).count()
                            }),
                        0,
                        "{file}: {pod}"
                    );
                }
                _ => {}
            }
        }
    }
}
