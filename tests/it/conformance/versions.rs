//! The oldest Rust that the project is built with.

// behaviour: W22 supported-versions
#[test]
fn the_minimum_rust_version_is_no_lower_than_that_of_any_dependency_and_ci_builds_with_it() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = ["metadata", "--format-version", "1", "--offline", "--all-features", "--locked"];
    // What other systems need is not here to be looked at.
    let platform = std::process::Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap().stdout;
    let platform = String::from_utf8(platform).unwrap();
    let metadata = std::process::Command::new(cargo)
        .current_dir(root)
        .args(metadata)
        .args(["--filter-platform", platform.trim()])
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |package: &serde_json::Value| {
        let text = package["rust_version"].as_str().unwrap_or("1.0");
        text.split('.').map(|part| part.parse::<u32>().unwrap()).chain([0, 0]).take(3).collect::<Vec<_>>()
    };
    let ours = version(packages.iter().find(|package| package["name"] == "presence-macros").unwrap());
    assert!(ours > vec![1, 0, 0]);
    // Of the tests' own dependencies an ordinary user never hears.
    let newer = packages.iter().filter(|package| version(package) > ours).map(|package| package["name"].as_str());
    assert_eq!(newer.collect::<Vec<_>>(), Vec::<Option<&str>>::new());
    let workflow = std::fs::read_to_string(root.join(".github/workflows/ci.yml")).unwrap();
    let minimum = format!("rustup toolchain install {}.{} ", ours[0], ours[1]);
    assert!(workflow.contains(&minimum), "a job that builds with {minimum}");
}
