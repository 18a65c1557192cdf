use super::*;

#[test]
fn a_deleted_backing_file_is_looked_up_under_both_names() {
    let paths: Vec<PathBuf> = backing_paths(b"/a b (deleted)\n").collect();
    assert_eq!(paths, [Path::new("/a b (deleted)"), Path::new("/a b")]);
    let paths: Vec<PathBuf> = backing_paths(b"/a\n").collect();
    assert_eq!(paths, [Path::new("/a")]);
}
