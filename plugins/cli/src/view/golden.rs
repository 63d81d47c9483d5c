//! Comparing text with what was seen and approved: `tests/golden/NAME.txt`, written anew when
//! `DROVER_GOLDEN=write` is set.

use std::path::PathBuf;

pub(crate) fn assert_golden(name: &str, text: &str) {
    let file = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let file = PathBuf::from(file);
    let text = format!("{text}\n");
    if std::env::var("DROVER_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    let approved = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        text,
        approved,
        "{} differs; if it is right: DROVER_GOLDEN=write",
        file.display()
    );
}
