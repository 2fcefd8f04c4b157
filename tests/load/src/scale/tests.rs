use clap::Parser as _;

use super::*;

fn plan(arguments: &str, open_files: u64) -> Result<(usize, usize, usize, usize), String> {
    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        scale: Scale,
    }
    let args = Args::try_parse_from(std::iter::once("scale").chain(arguments.split_whitespace())).unwrap();
    let plan = Plan::new(&args.scale, open_files)?;
    Ok((plan.nodes, plan.small, plan.large, plan.small_crowds))
}

#[test]
fn the_limit_of_open_files_decides_how_many_processes_there_are() {
    assert_eq!(plan("--sockets 50000", 20_000), Ok((6, 40_000, 10_000, 3)));
    assert_eq!(plan("--sockets 9936", 20_000), Ok((1, 7949, 1987, 1)));
    assert_eq!(plan("--sockets 50000 --nodes 2 --large-room 100", 1 << 20), Ok((2, 49_900, 100, 2)));
    let few = plan("--sockets 50000 --nodes 4", 20_000).unwrap_err();
    assert_eq!(few, "with a limit of 20000 open files a node can have 9936 sockets: use at least 6 nodes");
    assert!(plan("--sockets 100000 --large-room 30000", 20_000).is_err());
    assert!(plan("--sockets 10", 20_000).is_err());
}
