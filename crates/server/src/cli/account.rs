//! stub
pub(crate) async fn run(_: super::UserCommand) -> anyhow::Result<()> {
    Ok(())
}
