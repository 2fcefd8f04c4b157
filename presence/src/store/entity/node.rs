//! One row for each life of a node that is not forgotten yet.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "nodes")]
pub struct Model {
    /// The incarnation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// `NULL` once a later life has taken the name.
    #[sea_orm(unique)]
    pub name: Option<String>,
    /// The name that a later life has taken, by which this one learns, should it wake up, that it must stop.
    pub lost_name: Option<String>,
    /// The process that began it. `NULL` if a version did that which did not say.
    pub process: Option<String>,
    pub started_at: i64,
    pub lease_until: i64,
    pub fenced_at: Option<i64>,
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
