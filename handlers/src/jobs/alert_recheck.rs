//! Two minutes after a resolve: did a firing that looked like a late duplicate stay without another resolve? Then it was a new episode.

use async_trait::async_trait;
use domain::job::Job as Row;

use super::{Done, Job, JobError, field};
use crate::Cx;
use crate::batch::Batch;
use crate::on_alert;

pub(crate) struct AlertRecheck;

#[async_trait]
impl Job for AlertRecheck {
    fn kind(&self) -> &'static str {
        "alert.recheck"
    }

    async fn run(&self, cx: &Cx, row: &Row) -> Result<Done, JobError> {
        let (source, fingerprint): (String, String) = (field(row, "source")?, field(row, "fingerprint")?);
        let mut batch = Batch::begin(cx).await?;
        if let Some(alert) = batch.alert(&source, &fingerprint).await? {
            if alert.was_just_resolved(batch.now) {
                return Ok(Done::Again(on_alert::recheck_at(&alert, batch.now)));
            }
            on_alert::refire(&mut batch, alert).await?;
        }
        batch.commit().await?;
        Ok(Done::Finished)
    }
}
