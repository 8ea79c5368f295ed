//! What the services for operators have in common: who may answer, what is refused in the same words, what is counted.
//!
//! | the loop says | the caller gets |
//! | --- | --- |
//! | not found | NOT_FOUND |
//! | a field makes no sense | INVALID_ARGUMENT |
//! | a safety check refuses | FAILED_PRECONDITION, without the address of another leader |
//! | no node can take it | RESOURCE_EXHAUSTED |
//! | too many wait, or the store refused: nothing was done | UNAVAILABLE |
//! | leadership ended, no answer in time: it may have been done | ABORTED, DEADLINE_EXCEEDED |

use std::sync::Arc;

use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status};

use super::heartbeat::Shared;
use crate::control::ControlError;
use crate::leader::Leader;

/// Bytes of a reason.
const REASON_BYTES: usize = 1_024;

/// What this replica has as leader.
///
/// # Errors
/// FAILED_PRECONDITION where it does not lead, with the address of the one that does, where it is known, in the metadata.
pub fn leader(shared: &Shared) -> Result<Arc<Leader>, Status> {
    shared.leading().ok_or_else(|| not_leader(shared))
}

fn not_leader(shared: &Shared) -> Status {
    let known = shared.other_leader();
    let mut status = Status::failed_precondition(match &known {
        Some(known) => format!("this replica does not lead; {} at {} does", known.name, known.addr),
        None => "this replica does not lead, and knows of no leader".to_owned(),
    });
    if let Some(Ok(addr)) = known.map(|known| MetadataValue::try_from(known.addr)) {
        status.metadata_mut().insert("metasrv-leader", addr);
    }
    status
}

/// Checks an operator's reason.
///
/// # Errors
/// RESOURCE_EXHAUSTED for one that is too long.
pub fn reason(reason: &str) -> Result<(), Status> {
    if reason.len() > REASON_BYTES {
        return Err(Status::resource_exhausted(format!(
            "reason (bytes): at most {REASON_BYTES} are accepted"
        )));
    }
    Ok(())
}

/// Counts a call by its outcome, and makes it the response.
///
/// # Errors
/// What the call itself ended with.
pub fn counted<T>(shared: &Shared, method: &str, result: Result<T, Status>) -> Result<Response<T>, Status> {
    let code = result.as_ref().err().map_or(Code::Ok, Status::code);
    shared.metrics.admin_requests.with_label_values(&[method, &format!("{code:?}")]).inc();
    result.map(Response::new)
}

/// What a refusal of the control loop is on the wire: see the table above.
pub fn status(error: ControlError) -> Status {
    let words = error.to_string();
    match error {
        ControlError::NotLeading => Status::aborted(words),
        ControlError::Busy | ControlError::Store(_) => Status::unavailable(words),
        ControlError::TimedOut => Status::deadline_exceeded(words),
        ControlError::NotFound(_) => Status::not_found(words),
        ControlError::Invalid { .. } => Status::invalid_argument(words),
        ControlError::Refused(_) => Status::failed_precondition(words),
        ControlError::Exhausted(_) => Status::resource_exhausted(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::store::fenced::CommitError;
    use tonic::Code;

    #[test]
    fn each_refusal_has_its_code_and_names_no_other_leader() {
        let cases = [
            (ControlError::NotFound("there is no region 7".to_owned()), Code::NotFound),
            (ControlError::Invalid { field: "order", why: "must be set".to_owned() }, Code::InvalidArgument),
            (ControlError::Refused("it is there already".to_owned()), Code::FailedPrecondition),
            (ControlError::Exhausted("no node is left".to_owned()), Code::ResourceExhausted),
            (ControlError::Busy, Code::Unavailable),
            (ControlError::Store(CommitError::Refused(StoreError::OutOfSpace)), Code::Unavailable),
            (ControlError::TimedOut, Code::DeadlineExceeded),
            (ControlError::NotLeading, Code::Aborted),
        ];
        for (error, code) in cases {
            let status = status(error.clone());
            assert_eq!(status.code(), code, "{error:?}");
            assert_eq!(status.message(), error.to_string());
            assert!(status.metadata().is_empty(), "a client would go to another replica: {error:?}");
        }
    }
}
