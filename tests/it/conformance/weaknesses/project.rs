//! Names, settings, documents, versions.

use crate::conformance::bed::{bed, bed_on, channel, secs, user};
use presence::{ChannelName, Config, GroupName, MemoryStore, RoomName, UserId, testing::store::ManualClock};

// behaviour: W18 names
#[test]
fn a_name_is_any_text_of_255_bytes_and_an_error_names_the_rule() {
    // There: ASCII letters, digits and `_.-`, below 100 of them; a line feed at the end slips through, and what is longer or
    // has a NUL passes one database and not the other.
    for fine in ["a", "a b", "a/b:c!", "Grüße 🦀", &"x".repeat(99), &"x".repeat(100), &"x".repeat(255)] {
        assert!(RoomName::new(fine).is_ok() && ChannelName::new(fine).is_ok(), "{fine}");
        assert!(GroupName::new(fine).is_ok() && UserId::new(fine).is_ok(), "{fine}");
    }
    let says = |text: &str, rule: &str| {
        let errors = [RoomName::new(text).unwrap_err(), ChannelName::new(text).unwrap_err()];
        assert!(errors.iter().all(|error| error.to_string().contains(rule)), "{errors:?}");
    };
    says("", "must not be empty");
    says(&"x".repeat(256), "at most 255 bytes, not 256");
    says(&"é".repeat(128), "at most 255 bytes, not 256");
    says("a\n", "control characters (byte 1)");
    says("a\0b", "control characters (byte 1)");
}

// behaviour: W18 long-names
#[actix_web::test]
async fn a_name_of_255_bytes_passes_every_layer() {
    let mut bed = bed().await;
    let (long, name) = (RoomName::new("ß".repeat(127) + "x").unwrap(), channel(&"c".repeat(255)));
    bed.rooms.add(&long, &name, Some(&user(&"u".repeat(255)))).await.unwrap();
    assert_eq!(bed.rooms.users(&long).await.unwrap()[0].as_str().len(), 255);
    bed.rooms.leave_all(&name).await.unwrap();
    assert!(bed.told().await.starts_with("+uuu") && bed.told().await.starts_with("-uuu"));
}

// behaviour: 2.9 wrong-type
// behaviour: W21 settings-checked-at-start
#[test]
fn a_setting_of_the_wrong_kind_is_refused_at_start() {
    let error = serde_json::from_str::<Config>(r#"{"max_age": 60}"#).unwrap_err().to_string();
    assert!(error.contains("max_age"), "{error}");
    assert!(Config::builder().max_age(secs(0)).build().is_err());
}

// behaviour: W21 monotonic
#[actix_web::test]
async fn a_wall_clock_that_jumps_by_years_makes_nobody_leave() {
    // There `last_seen` is the application's wall clock: a jump forward prunes everybody, one back nobody ever again.
    let wall = ManualClock::new();
    let mut bed = bed_on(MemoryStore::new(wall.clock()), |config| config).await;
    let mut ann = bed.member("ann").await;
    assert_eq!(bed.told().await, "+ann");
    wall.advance(secs(10 * 365 * 86_400));
    bed.rooms.prune_presences(None).await.unwrap();
    for _ in 0..6 {
        bed.leap(secs(30)).await;
        ann.socket.send_text("\"heartbeat\"");
    }
    bed.quiet().await;
    assert_eq!(bed.here().await, 1);
    bed.leap(secs(61)).await;
    assert_eq!(bed.told().await, "bulk ann", "by the clock that does not jump");
}

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
