//! `presence prune-presences` and `prune-rooms`.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    name::{NodeId, NodeName, RequestId},
    store::{Answer, NodeState, NodeStore, NodeSummary, Order, Request, RequestStore, RoomStore, SqlStore},
};

use super::{
    failure::Failure,
    report::Report,
    table::{Medium, visible},
};

/// How many presences are removed in one transaction. Joins wait for one transaction at most.
const BATCH: u64 = 1000;
/// The time between two queries of the answers.
const ANSWER_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Serialize)]
pub(super) struct PrunedRooms {
    removed: u64,
}

pub(super) async fn rooms(store: &SqlStore, node: NodeId) -> Result<PrunedRooms, Failure> {
    Ok(PrunedRooms { removed: store.prune_rooms(node).await? })
}

impl Report for PrunedRooms {
    fn text(&self, _: Medium) -> String {
        format!("removed {}\n", counted(self.removed, "empty room"))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Pruned {
    max_age_ms: u128,
    /// The number of presences that were removed, by nodes and by this command.
    pruned: u64,
    /// The nodes that received the request.
    nodes: Vec<RequestedNode>,
    /// The number of presences that this command removed: held ones, and those of no live node.
    orphaned: u64,
    #[serde(skip)]
    wait: Duration,
}

#[derive(Debug, Serialize)]
struct RequestedNode {
    node: NodeName,
    node_id: NodeId,
    outcome: NodeOutcome,
    pruned: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum NodeOutcome {
    Answered,
    /// The node is live, but did not answer in time. It may have pruned, or may still prune.
    Silent,
    /// The node ended before it answered. Its presences are removed by this command or by other nodes.
    Ended,
}

pub(super) async fn presences(
    store: &SqlStore,
    node: NodeId,
    max_age: Duration,
    unwritten: Duration,
    wait: Duration,
) -> Result<Pruned, Failure> {
    let (answers, states) = ask(store, node, max_age, wait).await?;
    let nodes: Vec<RequestedNode> = answers
        .into_iter()
        .map(|Answer { node, name, removed: pruned }| {
            let outcome = match (pruned, states.get(&node)) {
                (Some(_), _) => NodeOutcome::Answered,
                (None, Some(NodeState::Live { .. })) => NodeOutcome::Silent,
                (None, _) => NodeOutcome::Ended,
            };
            RequestedNode { node: name, node_id: node, outcome, pruned }
        })
        .collect();
    let mut orphaned = 0;
    loop {
        let batch = store.prune(node, max_age, unwritten, BATCH).await?;
        orphaned += batch.handled;
        if !batch.more {
            break;
        }
    }
    let pruned = nodes.iter().filter_map(|asked| asked.pruned).sum::<u64>() + orphaned;
    Ok(Pruned { max_age_ms: max_age.as_millis(), pruned, nodes, orphaned, wait })
}

/// Sends the request to live nodes, and waits until all have answered, but for at most `wait`. A node with an expired lease may only have
/// failed to reach the database, so it has the same time to return, and then receives the request.
async fn ask(
    store: &SqlStore,
    node: NodeId,
    max_age: Duration,
    wait: Duration,
) -> Result<(Vec<Answer>, HashMap<NodeId, NodeState>), Failure> {
    let (request, since) = (Request { id: RequestId::random(), order: Order::Prune { max_age } }, Instant::now());
    loop {
        store.send_request(node, request.clone()).await?;
        let answers = store.answers(request.id).await?;
        let nodes = store.nodes().await?;
        let left = wait.saturating_sub(since.elapsed());
        if left.is_zero() || !nodes.iter().any(|node| may_yet_answer(node, &answers)) {
            return Ok((answers, nodes.into_iter().map(|node| (node.node, node.state)).collect()));
        }
        tokio::time::sleep(ANSWER_INTERVAL.min(left)).await;
    }
}

fn may_yet_answer(node: &NodeSummary, answers: &[Answer]) -> bool {
    let answer = answers.iter().find(|answer| answer.node == node.node);
    match (node.state, answer) {
        (NodeState::Live { .. }, Some(answer)) => answer.removed.is_none(),
        // A node that has just become live receives the request in the next round.
        (NodeState::Live { .. } | NodeState::Expired { .. }, _) => node.presences > node.held,
        (NodeState::Fenced { .. }, _) => false,
    }
}

impl Pruned {
    /// An error if a live node did not answer, although everything else is done.
    pub(super) fn check_answers(&self) -> Result<(), Failure> {
        let silent = self.nodes.iter().filter(|asked| asked.outcome == NodeOutcome::Silent);
        let nodes: Vec<String> = silent.map(|asked| visible(asked.node.as_str()).into_owned()).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        Err(Failure::Silent { nodes, wait: humantime::format_duration(self.wait).to_string() })
    }
}

impl Report for Pruned {
    fn text(&self, _: Medium) -> String {
        let mut text = String::new();
        for asked in &self.nodes {
            let node = visible(asked.node.as_str());
            text.push_str(&match (asked.outcome, asked.pruned) {
                (NodeOutcome::Answered, pruned) => format!("node {node}: pruned {}\n", pruned.unwrap_or(0)),
                (NodeOutcome::Silent, _) => format!("node {node}: no answer\n"),
                (NodeOutcome::Ended, _) => format!("node {node}: ended before it answered\n"),
            });
        }
        text.push_str(&format!("held or of no live node: pruned {}\n", self.orphaned));
        let age = u64::try_from(self.max_age_ms).unwrap_or(u64::MAX);
        let age = humantime::format_duration(Duration::from_millis(age));
        text.push_str(&format!("pruned {} not seen for {age}\n", counted(self.pruned, "presence")));
        text
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
