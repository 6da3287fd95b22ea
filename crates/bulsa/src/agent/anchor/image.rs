//! The anchors' image: one program that does nothing at all.
//!
//! Owns: that program, which is made here, instruction by instruction, since no registry can be relied on; and the image
//! around it. It waits for signals for ever and needs no library, no shell and no writable disk: some 140 bytes.

use bollard::{Docker, errors::Error, query_parameters::CreateImageOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::agent::docker::WORK_MAX;

/// The image's name.
const REPOSITORY: &str = "bulsa-anchor";
/// Another program gets another tag.
const TAG: &str = "1";

/// Where the program is loaded, and the sizes of the two headers before its code (ELF-64).
const LOAD_ADDRESS: u64 = 0x40_0000;
const ELF_HEADER_BYTES: u16 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;

/// `again: pause(); goto again`
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0x6a, 0x22, // push 34 (pause)
    0x58, // pop rax
    0x0f, 0x05, // syscall
    0xeb, 0xf9, // jmp again
];
/// `again: ppoll(NULL, 0, NULL, NULL, 0); goto again`
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, // mov x0, 0
    0x01, 0x00, 0x80, 0xd2, // mov x1, 0
    0x02, 0x00, 0x80, 0xd2, // mov x2, 0
    0x03, 0x00, 0x80, 0xd2, // mov x3, 0
    0x04, 0x00, 0x80, 0xd2, // mov x4, 0
    0x28, 0x09, 0x80, 0xd2, // mov x8, 73 (ppoll)
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xf9, 0xff, 0xff, 0x17, // b again
];

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The program as an executable file.
fn program() -> Vec<u8> {
    let headers = u64::from(ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES);
    let size = headers + CODE.len() as u64;
    let mut elf = Vec::new();
    // 64 bits, little-endian, version 1, System V.
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend(2_u16.to_le_bytes()); // an executable
    elf.extend(MACHINE.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    elf.extend((LOAD_ADDRESS + headers).to_le_bytes()); // where it begins
    elf.extend(u64::from(ELF_HEADER_BYTES).to_le_bytes()); // where the program header is
    elf.extend(0_u64.to_le_bytes()); // no sections
    elf.extend(0_u32.to_le_bytes());
    for number in [ELF_HEADER_BYTES, PROGRAM_HEADER_BYTES, 1, 0, 0, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes()); // to be loaded
    elf.extend(5_u32.to_le_bytes()); // readable and executable
    for number in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(CODE);
    elf
}

fn layer() -> std::io::Result<Vec<u8>> {
    let program = program();
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o555);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "anchor", program.as_slice())?;
    tar.into_inner()
}

/// Makes sure that the image is there; its name.
pub(super) async fn ensure(engine: &Docker) -> Result<String, Error> {
    // The client's own limit ends with the head of an answer.
    tokio::time::timeout(WORK_MAX, made(engine)).await.unwrap_or(Err(Error::RequestTimeoutError))
}

async fn made(engine: &Docker) -> Result<String, Error> {
    let name = format!("{REPOSITORY}:{TAG}");
    match engine.inspect_image(&name).await {
        Ok(_) => return Ok(name),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => return Err(error),
    }
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(REPOSITORY)
        .tag(TAG)
        .changes(vec!["ENTRYPOINT [\"/anchor\"]".to_owned()])
        .build();
    let layer = layer().map_err(|err| Error::IOError { err })?;
    let mut progress = std::pin::pin!(engine.create_image(
        Some(options),
        Some(bollard::body_full(Bytes::from(layer))),
        None
    ));
    while let Some(step) = progress.next().await {
        step?;
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    #[test]
    fn the_program_runs_until_it_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor");
        fs::write(&path, program()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        let syscall = format!("/proc/{}/syscall", child.id());
        // It is where it should be once it waits in its one system call.
        while !fs::read_to_string(&syscall).unwrap().starts_with(if MACHINE == 62 { "34 " } else { "73 " }) {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_layer_holds_the_program_and_nothing_else() {
        let layer = layer().unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, [std::path::Path::new("anchor")]);
    }
}
