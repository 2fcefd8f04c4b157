//! One row for each life of a room.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rooms")]
pub struct Model {
    /// The epoch: a new life of a room is a new row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The name, which is that of the group too.
    #[sea_orm(unique)]
    pub channel_name: String,
    pub version: i64,
    pub created_at: i64,
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
