//! One row for each version of a room that was given in the last seconds, while several nodes are alive.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "room_changes")]
pub struct Model {
    /// The epoch of the room, which may be pruned already.
    #[sea_orm(primary_key, auto_increment = false)]
    pub room_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i64,
    /// The incarnation that made the change.
    pub node_id: Uuid,
    /// The delta as JSON.
    pub delta: Vec<u8>,
    /// When it was made. It has an index.
    pub made_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
