//! One row for each node that is asked to prune or to remove, and its answer.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "prune_requests")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub node_id: Uuid,
    /// When it was asked.
    pub node_name: String,
    /// With whose life the request ends.
    pub asked_by: Uuid,
    pub max_age: i64,
    /// Whom to remove, as JSON; `NULL`: it is to prune.
    pub removal: Option<String>,
    /// How many it removed; `NULL` until it answers.
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
