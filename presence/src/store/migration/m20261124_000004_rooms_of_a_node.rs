//! An index by which the presences of a dead node are removed room by room. So a transaction changes few rooms, and each room
//! seldom changes twice.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[derive(DeriveIden)]
enum Presences {
    Table,
    NodeId,
    HeldUntil,
    RoomId,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[expect(elided_lifetimes_in_paths, reason = "the trait's own signature elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Each step checks whether it was done: MySQL does not undo the first step if the second fails. Its foreign key also needs an
        // index at all times.
        if !manager.has_index("presences", "presences_node_room").await? {
            let new = Index::create()
                .name("presences_node_room")
                .table(Presences::Table)
                .col(Presences::NodeId)
                .col(Presences::HeldUntil)
                .col(Presences::RoomId)
                .take();
            manager.create_index(new).await?;
        }
        if manager.has_index("presences", "presences_node").await? {
            manager.drop_index(Index::drop().name("presences_node").table(Presences::Table).to_owned()).await?;
        }
        Ok(())
    }
}
