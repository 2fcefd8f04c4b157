//! One row for each socket in a room.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "presences")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub room_id: Uuid,
    pub channel_name: String,
    pub user_id: Option<String>,
    /// A JSON object, as the text that the client sent.
    #[sea_orm(column_type = "Text")]
    pub meta: String,
    pub node_id: Uuid,
    /// The hash of the room, the user if there is one, and the resume token.
    pub session_hash: Option<Vec<u8>>,
    /// How long the presence is held when its socket is lost. `NULL` if it cannot be resumed.
    pub grace: Option<i64>,
    /// Until when the presence is held. `NULL` if it is not held.
    pub held_until: Option<i64>,
    pub joined_at: i64,
    pub last_seen: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(belongs_to = "super::room::Entity", from = "Column::RoomId", to = "super::room::Column::Id")]
    Room,
    #[sea_orm(belongs_to = "super::node::Entity", from = "Column::NodeId", to = "super::node::Column::Id")]
    Node,
}

impl Related<super::room::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Room.def()
    }
}

impl Related<super::node::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Node.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
