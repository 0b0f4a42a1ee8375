//! Whatever `ARCHITECTURE.md` names in the code is there.

use std::fs;
use std::path::Path;

const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");

const FOLDERS: [&str; 10] = [
    "bench",
    "clients",
    "conformance",
    "duologue",
    "gateway",
    "proto",
    "runtime",
    "services",
    "simulation",
    "xtask",
];

#[test]
fn every_file_and_folder_that_is_named_exists() {
    let sources = sources();
    let named: Vec<_> = spans().filter(|span| is_path(span)).collect();
    assert!(named.len() > 40, "only {} paths were found", named.len());
    for name in named {
        let inner = format!("/{name}");
        assert!(
            sources.iter().any(|(path, _)| path.contains(&inner)),
            "{name}"
        );
    }
}

#[test]
fn every_function_that_is_named_exists() {
    let sources = sources();
    let named: Vec<_> = spans().filter_map(function).collect();
    assert!(named.len() > 40, "only {} were found", named.len());
    for name in named {
        let declarations = [format!("fn {name}("), format!("fn {name}<")];
        let is_declared = |text: &String| declarations.iter().any(|it| text.contains(it));
        assert!(sources.iter().any(|(_, text)| is_declared(text)), "{name}");
    }
}

/// What stands between backticks on one line.
fn spans() -> impl Iterator<Item = &'static str> {
    let lines = ARCHITECTURE.lines().filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn is_path(span: &str) -> bool {
    !span.contains(' ') && (span.ends_with('/') || has_extension(span, "rs"))
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|it| it == extension)
}

/// The last word of `Type::function` or `module::function`.
fn function(span: &'static str) -> Option<&'static str> {
    let (_, name) = span.rsplit_once("::")?;
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    name.chars().all(is_name).then_some(name)
}

/// Every source file: its path, with `/` before it, and its text.
pub(super) fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &format!("/{folder}"), &mut sources);
    }
    sources
}

fn collect(folder: &Path, name: &str, sources: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{name}/{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, sources);
        } else if has_extension(&name, "rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push((name, text));
        }
    }
}
