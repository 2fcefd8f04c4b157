//! One row for each request and each node that receives it, with the answer.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "prune_requests")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub node_id: Uuid,
    /// The name of the node when the request was sent.
    pub node_name: String,
    /// The incarnation that sent the request. The request ends with it.
    pub asked_by: Uuid,
    pub max_age: i64,
    /// What to remove, as JSON. `NULL` for a request to prune.
    pub removal: Option<String>,
    /// How many presences the node removed. `NULL` until it answers.
    pub pruned: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(belongs_to = "super::node::Entity", from = "Column::AskedBy", to = "super::node::Column::Id")]
    Asker,
}

impl Related<super::node::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Asker.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
