//! The codec of all services: protobuf, with buffers for many quiet streams.
//!
//! tonic keeps two buffers of 8 KiB for each open stream. A steady heartbeat has a hundred bytes each way, so ten thousand
//! quiet nodes would keep 160 MB for nothing. These begin small and grow with the message; a large one is not kept.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Bytes that a buffer begins with: a few steady heartbeats.
const BEGIN: usize = 1024;

/// A response that is larger than this is handed to the transport before the next one is encoded.
const YIELD: usize = 32 * 1024;

/// See the module.
#[derive(Clone, Debug)]
pub struct QuietCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for QuietCodec<T, U> {
    fn default() -> QuietCodec<T, U> {
        QuietCodec(PhantomData)
    }
}

impl<T, U> Codec for QuietCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BEGIN, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BEGIN, YIELD))
    }
}
