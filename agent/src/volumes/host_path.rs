//! Files and directories of the host, with the checks that their type asks for.

use std::fs::{self, File, FileType};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use setpoint_apis::core::HostPathVolumeSource;

use super::{VolumeProblem, host};

/// Makes sure that the host has what the volume names.
pub(super) fn check(source: &HostPathVolumeSource) -> Result<(), VolumeProblem> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    if !path.exists() {
        match kind {
            // Without a type nothing is checked, and what is missing is made, as other runtimes do.
            "" | "DirectoryOrCreate" => fs::create_dir_all(path).map_err(host(path))?,
            "FileOrCreate" => {
                let file = File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map_err(host(path))?;
                file.set_permissions(fs::Permissions::from_mode(0o644))
                    .map_err(host(path))?;
            }
            _ => return Err(wrong(source, "nothing")),
        }
    }
    let found = fs::metadata(path).map_err(host(path))?.file_type();
    let right = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => false,
    };
    if right {
        Ok(())
    } else {
        Err(wrong(source, named(found)))
    }
}

fn wrong(source: &HostPathVolumeSource, found: &'static str) -> VolumeProblem {
    VolumeProblem::WrongType {
        path: source.path.clone().into(),
        wanted: source.type_.clone().unwrap_or_default(),
        found,
    }
}

fn named(found: FileType) -> &'static str {
    if found.is_dir() {
        "a directory"
    } else if found.is_file() {
        "a file"
    } else if found.is_socket() {
        "a socket"
    } else if found.is_char_device() {
        "a character device"
    } else if found.is_block_device() {
        "a block device"
    } else if found.is_fifo() {
        "a pipe"
    } else {
        "something else"
    }
}
