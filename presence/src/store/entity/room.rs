//! One row for each epoch of a room that is not pruned.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rooms")]
pub struct Model {
    /// The epoch. A room that is created again gets a new row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The name of the room, and of its group.
    #[sea_orm(unique)]
    pub channel_name: String,
    pub version: i64,
    pub created_at: i64,
    /// When it was given its version, in whole seconds since 1970. It has an index. 0 if an earlier version of this crate did it.
    pub changed_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(has_many = "super::presence::Entity")]
    Presences,
}

impl Related<super::presence::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Presences.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
