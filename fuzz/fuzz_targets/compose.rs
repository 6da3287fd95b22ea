//! Whatever the compose files say, and whatever files they lead to: the loader answers, and never panics.
//!
//! An input is several texts between lines of `%%%`. The first is the compose file; the second a `.env`; the third a
//! further `-f`, unless it is empty; the others are what any file that is asked for says, chosen by its path.
#![no_main]

use bulsa_core::{
    compose::{LoadInput, ReadError, SourceFile, config_json, load},
    wire::spec::{content_hash, decode, encode},
};
use libfuzzer_sys::fuzz_target;

const BETWEEN: &str = "\n%%%\n";

fuzz_target!(|text: &str| {
    let texts: Vec<&str> = text.split(BETWEEN).take(8).collect();
    let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let others = texts.get(3..).unwrap_or_default();
    let mut read = |path: &str| {
        let sum =
            path.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let of = sum.checked_rem(others.len()).and_then(|index| others.get(index));
        of.map(|text| (*text).to_owned()).ok_or(ReadError::NotFound)
    };
    let mut files = vec![file("/srv/shop/compose.yaml", texts[0])];
    files.extend(texts.get(2).filter(|text| !text.is_empty()).map(|text| file("/srv/shop/over.yaml", text)));
    let mut input = LoadInput::new(files, "/srv/shop", &mut read);
    input.dotenvs.extend(texts.get(1).map(|text| file("/srv/shop/.env", text)));
    let loaded = load(input);
    assert!(loaded.spec.is_none() || !loaded.diagnostics.has_errors(), "a spec in spite of mistakes");
    drop((loaded.diagnostics.to_string(), config_json(&loaded)));
    if let Some(spec) = loaded.spec {
        let hash = content_hash(&spec);
        let back = decode(&encode(&spec)).expect("what is sent can be read");
        assert_eq!(content_hash(&back), hash, "it means the same after the wire");
    }
});
