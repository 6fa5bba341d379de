//! From a container's definition to what the driver runs. Reads and makes directories, so it blocks.

use std::fs;
use std::path::PathBuf;

use setpoint_apis::core::{Container, PodSecurityContext, PodSpec, QosClass, SecurityContext};
use setpoint_apis::view;

use super::{HostUser, PodContext, PodInput};
use crate::cgroup::Limits;
use crate::driver::StartRequest;
use crate::env::{self, ConfigError};
use crate::layout::pod_name;
use crate::spec::{ContainerSpec, LogSpec};
use crate::volumes::{self, PreparedVolume};

/// What to start as the run number `attempt` of a container.
///
/// # Errors
/// [`ConfigError`]: the definition, or what it refers to, is missing something.
pub(super) fn request(
    ctx: &PodContext,
    input: &PodInput,
    container: &Container,
    volumes: &[PreparedVolume],
    attempt: u32,
    definition: String,
) -> Result<StartRequest, ConfigError> {
    let spec = &input.pod.spec;
    let mut base = ctx.node.base_env.clone();
    base.push((
        "HOSTNAME".to_owned(),
        spec.hostname
            .clone()
            .unwrap_or_else(|| input.pod.metadata.name.clone()),
    ));
    for mount in &container.volume_mounts {
        if let Some(volume) = volumes.iter().find(|v| v.name == mount.name) {
            base.push((
                volumes::variable_name(&volume.name),
                volume.path.to_string_lossy().into_owned(),
            ));
        }
    }
    let invocation = env::resolve(&ctx.facts(input), container, &ctx.content, base)?;
    let user = user(
        spec.security_context.as_deref(),
        container.security_context.as_deref(),
        &ctx.user,
    )?;
    let dir = ctx.data.pod(&input.uid, input.placement);
    let log = LogSpec {
        path: dir.log(&container.name, attempt),
        max_bytes: ctx.log_max_bytes,
        max_files: ctx.log_max_files,
    };
    let container_spec = ContainerSpec {
        argv: invocation.argv,
        mounts: volumes::mounts(container, volumes, &invocation.env)?,
        env: invocation.env,
        search_path: ctx.node.search_path().to_owned(),
        cwd: container
            .working_dir
            .as_ref()
            .filter(|d| !d.is_empty())
            .map(PathBuf::from),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        no_new_privileges: container
            .security_context
            .as_ref()
            .and_then(|s| s.allow_privilege_escalation)
            == Some(false),
        mount_registry: ctx.mount_registry.clone(),
        log: Some(log),
        oom_score_adj: Some(oom_score(ctx, spec, container)),
        definition,
        fence: input.fence.map(|fence| ctx.data.fence(fence.revision)),
        ..ContainerSpec::default()
    };
    let cgroup_name = PathBuf::from(pod_name(&input.uid, input.placement))
        .join(format!("{}.{attempt}", container.name));
    Ok(StartRequest {
        dir: dir.attempt(&container.name, attempt),
        spec: container_spec,
        limits: limits(ctx, container),
        cgroup_name,
    })
}

fn limits(ctx: &PodContext, container: &Container) -> Limits {
    let milli = |list: &setpoint_apis::ResourceList| {
        list.get("cpu")
            .and_then(|q| u64::try_from(q.milli_value()).ok())
    };
    let bytes = container
        .limits()
        .get("memory")
        .and_then(|q| u64::try_from(q.value()).ok());
    Limits {
        cpu_request_milli: milli(container.requests()),
        cpu_limit_milli: milli(container.limits()).filter(|m| *m > 0),
        memory_limit_bytes: bytes.filter(|b| *b > 0),
        pids_limit: ctx.pids_limit,
    }
}

/// Who goes first when memory is short, as Kubernetes has it: those who asked for nothing.
fn oom_score(ctx: &PodContext, spec: &PodSpec, container: &Container) -> i32 {
    match view::qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = container
                .requests()
                .get("memory")
                .map_or(0.0, |q| q.as_f64());
            let capacity = ctx
                .node
                .capacity
                .get("memory")
                .map_or(1.0, |q| q.as_f64())
                .max(1.0);
            (1000 - (1000.0 * request / capacity) as i32).clamp(2, 999)
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct User {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
}

/// Whom a container runs as; nothing where that is whom the agent, `me`, runs as.
fn user(
    pod: Option<&PodSecurityContext>,
    container: Option<&SecurityContext>,
    me: &HostUser,
) -> Result<User, ConfigError> {
    let id = |value: Option<i64>, what: &str| match value.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(ConfigError::Definition(format!("{what} is out of range"))),
    };
    let uid = id(
        container
            .and_then(|c| c.run_as_user)
            .or(pod.and_then(|p| p.run_as_user)),
        "runAsUser",
    )?;
    let gid = id(
        container
            .and_then(|c| c.run_as_group)
            .or(pod.and_then(|p| p.run_as_group)),
        "runAsGroup",
    )?;
    let non_root = container
        .and_then(|c| c.run_as_non_root)
        .or(pod.and_then(|p| p.run_as_non_root))
        == Some(true);
    let effective = uid.unwrap_or(me.uid);
    if non_root && effective == 0 {
        let message = "container has runAsNonRoot and would run as root: set runAsUser";
        return Err(ConfigError::Definition(message.to_owned()));
    }
    let mut groups = Vec::new();
    if let Some(pod) = pod {
        for group in pod.supplemental_groups.iter().chain(&pod.fs_group) {
            groups.extend(id(Some(*group), "a supplemental group")?);
        }
    }
    if !me.is_root() {
        let foreign = |what: &str, id: u32| {
            Err(ConfigError::Definition(format!(
                "{what} {id}: the agent of this node is not root, it runs as user {} with group {}, and can start \
                 containers only as that: leave {what} out, or run the agent as root",
                me.uid, me.gid
            )))
        };
        return match (uid, gid, groups.iter().find(|g| !me.is_in(**g))) {
            (Some(uid), ..) if uid != me.uid => foreign("runAsUser", uid),
            (_, Some(gid), _) if gid != me.gid => foreign("runAsGroup", gid),
            (.., Some(group)) => foreign("fsGroup or supplementalGroups", *group),
            _ => Ok(User::default()),
        };
    }
    // Kubernetes would take group 0; on a host that is root's.
    let gid = gid.or_else(|| uid.map(|uid| primary_group(uid).unwrap_or(uid)));
    Ok(User { uid, gid, groups })
}

/// The group that the host's user database gives a user.
fn primary_group(uid: u32) -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: HostUser = HostUser {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    #[test]
    fn an_agent_without_root_runs_containers_as_itself_or_says_why_not() {
        let me = HostUser {
            uid: 1000,
            gid: 100,
            groups: vec![27],
        };
        let as_user = |uid| PodSecurityContext {
            run_as_user: Some(uid),
            ..Default::default()
        };
        let in_group = |group| PodSecurityContext {
            fs_group: Some(group),
            ..Default::default()
        };
        for fine in [as_user(1000), in_group(27), in_group(100)] {
            assert_eq!(user(Some(&fine), None, &me).unwrap(), User::default());
        }
        let refused = |pod| user(Some(&pod), None, &me).unwrap_err().to_string();
        let words = refused(as_user(0));
        assert!(
            words.starts_with("runAsUser 0: the agent of this node is not root, it runs as user 1000 with group 100"),
            "{words}"
        );
        assert!(refused(in_group(0)).starts_with("fsGroup or supplementalGroups 0: "));
        let group = PodSecurityContext {
            run_as_group: Some(5),
            ..as_user(1000)
        };
        assert!(refused(group).starts_with("runAsGroup 5: "));
    }

    #[test]
    fn the_container_overrides_the_pod_and_root_is_refused_where_it_must_not_be() {
        let pod = PodSecurityContext {
            run_as_user: Some(1),
            fs_group: Some(7),
            supplemental_groups: vec![8],
            ..Default::default()
        };
        let container = SecurityContext {
            run_as_user: Some(54321),
            ..Default::default()
        };
        let both = user(Some(&pod), Some(&container), &ROOT).unwrap();
        assert_eq!(
            both,
            User {
                uid: Some(54321),
                gid: Some(54321),
                groups: vec![8, 7]
            }
        );
        let group = SecurityContext {
            run_as_group: Some(9),
            ..Default::default()
        };
        assert_eq!(user(Some(&pod), Some(&group), &ROOT).unwrap().gid, Some(9));
        let root = SecurityContext {
            run_as_user: Some(0),
            run_as_non_root: Some(true),
            ..Default::default()
        };
        assert!(user(None, Some(&root), &ROOT).is_err());
        assert!(
            user(
                None,
                Some(&SecurityContext {
                    run_as_user: Some(-1),
                    ..Default::default()
                }),
                &ROOT
            )
            .is_err()
        );
        assert_eq!(user(None, None, &ROOT).unwrap(), User::default());
        assert_eq!(primary_group(0), Some(0));
    }
}
