use super::*;

#[test]
fn a_line_of_mountinfo_is_read_with_its_optional_fields_and_escapes() {
    let line = br"36 35 98:0 /root /mnt\040two rw,noatime master:1 shared:2 - ext4 /dev/a\134b rw";
    let mount = Mount::parse(line).expect("a line");
    assert_eq!(mount.device, "98:0");
    assert_eq!(mount.point, Path::new("/mnt two"));
    assert_eq!(mount.source, Path::new(r"/dev/a\b"));
}

#[test]
fn a_line_that_is_none_is_passed_over() {
    for line in ["", "36 35", "36 35 98:0 / /mnt rw", "36 35 98:0 / /mnt rw - ext4"] {
        assert!(Mount::parse(line.as_bytes()).is_none(), "{line}");
    }
}

#[test]
fn what_only_looks_like_an_escape_stays() {
    for text in [r"a\", r"a\04", r"a\0x0", r"a\777", r"\8"] {
        assert_eq!(unescaped(text.as_bytes()), Path::new(text));
    }
}

#[test]
fn a_deleted_backing_file_is_looked_up_under_both_names() {
    let paths: Vec<PathBuf> = backing_paths(b"/a b (deleted)\n").collect();
    assert_eq!(paths, [Path::new("/a b (deleted)"), Path::new("/a b")]);
    let paths: Vec<PathBuf> = backing_paths(b"/a\n").collect();
    assert_eq!(paths, [Path::new("/a")]);
}

#[test]
fn the_mount_of_the_root_is_known() {
    let root = mounts().into_iter().find(|mount| mount.point == Path::new("/"));
    assert!(root.is_some(), "a process has a root");
}
