//! Files and directories of the host, with the checks that their type asks for.

use std::fs::{self, File};
use std::io;
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
            _ => return Err(host(path)(io::ErrorKind::NotFound.into())),
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
        Err(VolumeProblem::WrongType {
            path: path.into(),
            wanted: kind.to_owned(),
        })
    }
}
