//! stub
pub(crate) async fn run(_: super::TokenCommand) -> anyhow::Result<()> {
    Ok(())
}
