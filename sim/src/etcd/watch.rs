//! The Watch service: one watch a stream, which is all that metasrv opens.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Member;
use super::pb::etcdserverpb::watch_request::RequestUnion;
use super::pb::etcdserverpb::watch_server::Watch;
use super::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use super::txn::header;

/// Messages on one stream that nobody has read yet; a slow reader is waited for.
const UNREAD: usize = 64;

/// The watch of a stream, and where it stands.
struct Watched {
    created: WatchCreateRequest,
    next: i64,
}

#[tonic::async_trait]
impl Watch for Member {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, answers) = mpsc::channel(UNREAD);
        tokio::spawn(serve(self.clone(), request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn serve(
    member: Member,
    mut asked: Streaming<WatchRequest>,
    sender: mpsc::Sender<Result<WatchResponse, Status>>,
) {
    let mut changes = member.etcd.shared.changed.subscribe();
    let mut watched: Option<Watched> = None;
    loop {
        let message = tokio::select! {
            biased;
            () = sender.closed() => return,
            request = asked.message() => match request {
                Ok(Some(WatchRequest { request_union: Some(asked) })) => {
                    member.asked(asked, &mut watched).await
                }
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return,
            },
            changed = changes.changed() => match changed {
                Ok(()) => member.news(&mut watched),
                Err(_) => return,
            },
        };
        for message in message {
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
}

impl Member {
    async fn asked(&self, asked: RequestUnion, watched: &mut Option<Watched>) -> Vec<WatchResponse> {
        // A member that is cut off answers nothing here.
        if self.ready().await.is_err() {
            return Vec::new();
        }
        let revision = self.etcd.state().revision();
        match asked {
            RequestUnion::CreateRequest(created) => {
                let next = if created.start_revision > 0 { created.start_revision } else { revision + 1 };
                *watched = Some(Watched { created, next });
                let mut messages = vec![WatchResponse {
                    header: Some(header(revision)),
                    created: true,
                    ..WatchResponse::default()
                }];
                messages.extend(self.news(watched));
                messages
            }
            RequestUnion::CancelRequest(_) => {
                *watched = None;
                let header = Some(header(revision));
                vec![WatchResponse { header, canceled: true, ..WatchResponse::default() }]
            }
            RequestUnion::ProgressRequest(_) => {
                // What the watch has not delivered yet comes first.
                let mut messages = self.news(watched);
                let header = Some(header(revision));
                messages.push(WatchResponse { header, watch_id: -1, ..WatchResponse::default() });
                messages
            }
        }
    }

    /// What has happened in the watched range since it was looked at last, as far as this member knows.
    fn news(&self, watched: &mut Option<Watched>) -> Vec<WatchResponse> {
        if !self.serves() {
            return Vec::new();
        }
        let Some(watch) = watched else { return Vec::new() };
        let state = self.etcd.state();
        let revision = state.revision();
        if watch.next <= state.compacted() {
            let ended = WatchResponse {
                header: Some(header(revision)),
                canceled: true,
                compact_revision: state.compacted(),
                ..WatchResponse::default()
            };
            *watched = None;
            return vec![ended];
        }
        if watch.next > revision {
            return Vec::new();
        }
        let events = state.events(&watch.created.key, &watch.created.range_end, watch.next);
        watch.next = revision + 1;
        if events.is_empty() {
            return Vec::new();
        }
        vec![WatchResponse { header: Some(header(revision)), events, ..WatchResponse::default() }]
    }
}
