//! One row for each incarnation that is not forgotten.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "nodes")]
pub struct Model {
    /// The incarnation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// `NULL` once a later incarnation has the name.
    #[sea_orm(unique)]
    pub name: Option<String>,
    /// The name that a later incarnation took. A process that was suspended learns from it that it must stop.
    pub lost_name: Option<String>,
    /// The process that began it. `NULL` if an early version of this crate began it.
    pub process: Option<String>,
    pub started_at: i64,
    pub fenced_at: Option<i64>,
    /// The incarnation that cleans up after this one, and until when the others leave that to it.
    pub cleaner: Option<Uuid>,
    pub cleaner_until: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(has_one = "super::lease::Entity")]
    Lease,
    #[sea_orm(has_many = "super::presence::Entity")]
    Presences,
}

impl Related<super::lease::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Lease.def()
    }
}

impl Related<super::presence::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Presences.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
