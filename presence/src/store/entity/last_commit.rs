//! The last commit of each node in each lane. The rows are created with the incarnation.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "last_commits")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub node_id: Uuid,
    /// 0 in SQLite, which has one lane. There the node alone is the key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub lane: i32,
    /// The number by which the node identifies the commit.
    pub attempt: i64,
    /// How many commits the node has made in the lane.
    pub commits: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(belongs_to = "super::node::Entity", from = "Column::NodeId", to = "super::node::Column::Id")]
    Node,
}

impl Related<super::node::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Node.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
