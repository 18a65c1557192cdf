//! What the export says of itself, by nbdinfo.

use super::Run;
use super::server::{Program, Server};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::Folder;
use crate::rig::image::scatter;

/// What the export has to say, in the words of `nbdinfo --json`.
const FACTS: &[&str] = &[
    "\"protocol\": \"newstyle-fixed\"",
    "\"structured\": true",
    "\"is_read_only\": false",
    "\"can_flush\": true",
    "\"can_fua\": true",
    "\"can_multi_conn\": true",
    "\"can_trim\": true",
    "\"can_zero\": true",
];

/// Asks for size, abilities and the map of a sparse image.
pub(super) fn nbdinfo(run: &Run) -> Result<String, Failure> {
    const SIZE: u64 = 64 << 20;
    let folder = Folder::new("nbdinfo")?;
    let image = folder.file("disk.img", SIZE)?;
    scatter(&image, SIZE / 2, 3)?;
    let server = Server::start(run.program, &folder, &image, &[])?;
    let uri = server.uri();
    let nbdinfo = |arguments: &[&str]| output(program("nbdinfo", arguments).arg(&uri));
    let json = nbdinfo(&["--json"])?;
    let size = format!("\"export-size\": {SIZE}");
    let facts = FACTS.iter().copied().chain([size.as_str()]);
    let missing: Vec<&str> = facts.filter(|fact| !json.contains(fact)).collect();
    if !missing.is_empty() && run.program == Program::Mpage {
        return Err(Failure::new(format!("not told: {}\n{json}", missing.join(", "))));
    }
    if nbdinfo(&["--size"])?.trim() != SIZE.to_string() {
        return Err(Failure::new("nbdinfo --size tells another size"));
    }
    let _words = nbdinfo(&[])?;
    let map = Map::read(&nbdinfo(&["--map"])?)?;
    if map.bytes != SIZE || map.holes < SIZE / 2 || map.holes == SIZE {
        let (bytes, holes) = (map.bytes, map.holes);
        return Err(Failure::new(format!("map of {bytes} bytes, {holes} in holes, half is")));
    }
    server.stop()?;
    let holes = map.holes >> 10;
    Ok(format!(
        "{} facts; map of {} extents, {holes} of {} KiB in holes",
        FACTS.len() + 1 - missing.len(),
        map.extents,
        SIZE >> 10
    ))
}

/// The sums of a map.
struct Map {
    extents: usize,
    bytes: u64,
    holes: u64,
}

impl Map {
    /// Reads lines of offset, length, type and the type's words, one extent each.
    fn read(text: &str) -> Result<Map, Failure> {
        let mut map = Map { extents: 0, bytes: 0, holes: 0 };
        for line in text.lines() {
            let numbers: Result<Vec<u64>, _> =
                line.split_whitespace().take(3).map(str::parse).collect();
            match numbers.as_deref() {
                Ok(&[offset, length, kind]) if offset == map.bytes => {
                    map.extents += 1;
                    map.bytes += length;
                    map.holes += if kind & 1 == 1 { length } else { 0 };
                }
                _ => return Err(Failure::new(format!("no extent at {}: {line}", map.bytes))),
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_without_gaps_is_summed() {
        let text = "         0       65536    0  data\n     65536       4096    3  hole,zero\n";
        let map = Map::read(text).expect("a map");
        assert_eq!((map.extents, map.bytes, map.holes), (2, 69632, 4096));
        assert!(Map::read("4096 4096 0 data\n").is_err());
    }
}
