//! The nodes in memory, and the requests that they send to one another.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;

use crate::{
    name::{NodeId, NodeName, RequestId, RoomName},
    store::{
        Answer, Batch, ClearMode, LEAVE_TO_CLEANER_FOR, LiveNode, NodeState, NodeStore, NodeSummary, Remaining,
        RemovalTarget, Request, RequestStore, RoomCommit, StoreError, Survey, WriteCounts,
        listing::{self, this_process},
        millis, time,
    },
};

use super::{
    MemoryStore,
    tables::{NodeEntry, PresenceEntry, RequestEntry},
};

#[async_trait]
impl NodeStore for MemoryStore {
    async fn register(&self, node: NodeId, name: NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        let now = self.now();
        let mut tables = self.tables();
        if tables.nodes.contains_key(&node) {
            tables.check(node)?;
        }
        let former = |(id, other): &(&NodeId, &NodeEntry)| **id != node && other.name == name;
        let last = tables.nodes.iter().filter(former).map(|(_, other)| other).find(|other| !other.superseded);
        if let Some(last) = last {
            let end = last.fenced_at.unwrap_or_else(|| last.lease_until.saturating_sub(millis(lease)));
            let former: HashSet<NodeId> = tables.nodes.iter().filter(former).map(|(id, _)| *id).collect();
            tables.extend_graces(&former, end, now);
        }
        for (_, other) in tables.nodes.iter_mut().filter(|(id, other)| **id != node && other.name == name) {
            other.superseded = true;
            other.fenced_at.get_or_insert(now);
        }
        let started_at = tables.nodes.get(&node).map_or(now, |row| row.started_at);
        let lease_until = now.saturating_add(millis(lease));
        let row = NodeEntry {
            name: name.clone(),
            process: this_process(),
            started_at,
            superseded: false,
            lease_until,
            fenced_at: None,
            writes: tables.nodes.get(&node).map_or(WriteCounts::default(), |row| row.writes.renewed()),
            cleaner: None,
        };
        tables.nodes.insert(node, row);
        let former = tables.nodes.iter().filter(|(_, other)| other.superseded && other.name == name);
        let mut former: Vec<_> = former.map(|(id, _)| *id).filter(|id| tables.is_uncleared(*id)).collect();
        former.sort_unstable();
        Ok(former)
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        if let Some(row) = tables.nodes.get_mut(&node) {
            row.lease_until = now.saturating_add(millis(lease));
            row.writes = row.writes.renewed();
        }
        Ok(time(now))
    }

    async fn report_set_back(&self, seen: u64, count: u64) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.set_backs == seen {
            tables.set_backs = count;
        }
        Ok(())
    }

    async fn rooms_with_presences_of(&self, node: NodeId) -> Result<Vec<RoomName>, StoreError> {
        let tables = self.tables();
        let own = tables.presences.values().filter(|row| row.presence.node == node && !row.presence.held);
        let rooms: HashSet<_> = own.map(|row| row.room.clone()).collect();
        Ok(rooms.into_iter().collect())
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        let now = self.now();
        let tables = self.tables();
        let summary = |(id, row): (&NodeId, &NodeEntry)| {
            let own = || tables.presences.values().filter(|row| row.presence.node == *id);
            NodeSummary {
                node: *id,
                name: row.name.clone(),
                process: Some(row.process.to_owned()),
                age: listing::between(row.started_at, now),
                state: NodeState::at(now, row.lease_until, row.fenced_at, row.superseded),
                presences: own().count() as u64,
                held: own().filter(|row| row.presence.held).count() as u64,
            }
        };
        let mut nodes: Vec<_> = tables.nodes.iter().map(summary).collect();
        nodes.sort_unstable_by(NodeSummary::in_order);
        Ok(nodes)
    }

    async fn live_nodes(&self) -> Result<Vec<LiveNode>, StoreError> {
        let now = self.now();
        let tables = self.tables();
        let unfenced = tables.nodes.iter().filter(|(_, row)| row.fenced_at.is_none());
        let mut nodes: Vec<_> = unfenced
            .map(|(id, row)| LiveNode {
                node: *id,
                name: row.name.clone(),
                process: Some(row.process.to_owned()),
                age: listing::between(row.started_at, now),
                state: NodeState::at(now, row.lease_until, None, false),
            })
            .collect();
        nodes.sort_unstable_by(LiveNode::in_order);
        Ok(nodes)
    }

    async fn survey(&self, node: NodeId) -> Result<Survey, StoreError> {
        let live = self.live_nodes().await?;
        let now = self.now();
        let tables = self.tables();
        let is_expired =
            |(id, row): (&NodeId, &NodeEntry)| *id != node && row.fenced_at.is_none() && row.lease_until < now;
        let has_dead = tables.nodes.iter().any(is_expired)
            || !tables.forgettable(now).is_empty()
            || !tables.uncleared_orphans(node, now).is_empty();
        let has_expired_graces = tables.presences.values().any(|row| row.held_until.is_some_and(|until| until < now));
        let has_requests = tables.requests.iter().any(|((_, of), asked)| *of == node && asked.removed.is_none());
        Ok(Survey { live, has_dead, has_expired_graces, has_requests })
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        for (_, other) in tables.nodes.iter_mut().filter(|(id, other)| **id != node && other.lease_until < now) {
            other.fenced_at.get_or_insert(now);
        }
        tables.forget(now);
        Ok(tables.uncleared_orphans(node, now))
    }

    async fn clear(&self, node: NodeId, dead: NodeId, mode: ClearMode, limit: u64) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let Some(row) = tables.nodes.get_mut(&dead).filter(|dead| dead.fenced_at.is_some()) else {
            return Ok(Batch::default());
        };
        if let ClearMode::HoldResumable(_) = mode {
            if row.is_left_to_another(node, now) {
                return Ok(Batch::default());
            }
            row.cleaner = Some((node, now.saturating_add(millis(LEAVE_TO_CLEANER_FOR))));
        }
        let (ids, more) = tables.ids(limit, |row| row.presence.node == dead && !row.presence.held);
        let (grace, held, gone) = match mode {
            ClearMode::HoldAll(grace) => (grace, ids, Vec::new()),
            ClearMode::HoldResumable(grace) => {
                let (held, gone) = ids.into_iter().partition(|id| tables.presences[id].session.is_some());
                (grace, held, gone)
            }
        };
        for id in &held {
            if let Some(row) = tables.presences.get_mut(id) {
                let grace = row.session.map_or(grace, |session| session.grace);
                row.hold(now.saturating_add(millis(grace)));
                row.last_seen = now;
            }
        }
        let mut batch = tables.batch(now, node, &(gone, more));
        batch.handled += held.len() as u64;
        tables.forget(now);
        Ok(batch)
    }

    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError> {
        let now = self.now();
        let mut tables = self.tables();
        if !tables.nodes.contains_key(&node) {
            return Ok(Vec::new());
        }
        tables.check(node)?;
        let (ids, _) = tables.ids(u64::MAX, |row| row.presence.node == node && !row.presence.held);
        let commits = tables.remove(now, &ids);
        tables.keep_changes(now, node, &commits);
        tables.extend_graces(&HashSet::from([node]), now.saturating_sub(millis(closed)), now);
        if let Some(row) = tables.nodes.get_mut(&node) {
            row.fenced_at = Some(now);
        }
        tables.forget(now);
        Ok(commits)
    }
}

#[async_trait]
impl RequestStore for MemoryStore {
    async fn send_request(&self, node: NodeId, Request { id, order }: Request) -> Result<Duration, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let target = order.target().filter(|target| !matches!(target, RemovalTarget::Channel { room: None, .. }));
        let concerned =
            tables.presences.values().filter(|row| target.is_none_or(|target| target.has(&row.room, &row.presence)));
        let busy: HashSet<NodeId> = concerned.map(|row| row.presence.node).collect();
        let receivers = tables
            .nodes
            .iter()
            .filter(|(other, _)| **other != node && tables.is_live(**other, now) && busy.contains(other));
        let receivers: Vec<_> = receivers.map(|(other, row)| (*other, row.name.clone())).collect();
        for (other, name) in receivers {
            let request = RequestEntry { name, sender: node, order: order.clone(), removed: None };
            tables.requests.entry((id, other)).or_insert(request);
        }
        Ok(time(now))
    }

    async fn remaining(
        &self,
        target: RemovalTarget,
        joined_before: Duration,
        limit: u64,
    ) -> Result<Vec<Remaining>, StoreError> {
        let (tables, before) = (self.tables(), millis(joined_before));
        let rows = tables.presences.values();
        let left = rows.filter(|row| row.joined_at < before && target.has(&row.room, &row.presence));
        let remaining = |row: &PresenceEntry| {
            let (id, node) = (row.presence.id, row.presence.node);
            Remaining { room: row.room.clone(), id, node }
        };
        Ok(left.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(remaining).collect())
    }

    async fn open_requests(&self, node: NodeId) -> Result<Vec<Request>, StoreError> {
        let now = self.now();
        let tables = self.tables();
        let asked = tables
            .requests
            .iter()
            .filter(|((_, of), asked)| *of == node && asked.removed.is_none() && tables.is_live(asked.sender, now));
        Ok(asked.map(|((id, _), asked)| Request { id: *id, order: asked.order.clone() }).collect())
    }

    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError> {
        let mut tables = self.tables_of(node)?;
        if let Some(asked) = tables.requests.get_mut(&(request, node)) {
            asked.removed.get_or_insert(removed);
        }
        Ok(())
    }

    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError> {
        let tables = self.tables();
        let asked = tables.requests.iter().filter(|((id, _), _)| *id == request);
        let answer = |((_, node), asked): (&(RequestId, NodeId), &RequestEntry)| Answer {
            node: *node,
            name: asked.name.clone(),
            removed: asked.removed,
        };
        let mut answers: Vec<_> = asked.map(answer).collect();
        answers.sort_unstable_by(Answer::in_order);
        Ok(answers)
    }

    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError> {
        let mut tables = self.tables_of(node)?;
        tables.requests.retain(|(id, _), asked| *id != request || asked.sender != node);
        Ok(())
    }
}
