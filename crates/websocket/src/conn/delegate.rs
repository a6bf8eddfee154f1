//! Streams that are one of several kinds, or have another inside: their reading and writing is its.

/// Implements `AsyncRead` for a type, by the stream that each of the patterns finds in a value of it.
///
/// ```text
/// delegate_read!({ S } ServerStream<S>, this => *this, stream in { Self::Http1(stream), Self::Http2(stream) });
/// ```
macro_rules! delegate_read {
    ({ $($generic:ident)? } $type:ty, $this:ident => $value:expr,
     $stream:ident in { $($(#[$cfg:meta])? $kind:pat),+ }) => {
        impl$(<$generic: tokio::io::AsyncRead + Unpin>)? tokio::io::AsyncRead for $type {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = self.get_mut();
                match &mut $value {
                    $($(#[$cfg])? $kind => std::pin::Pin::new($stream).poll_read(cx, buffer),)+
                }
            }
        }
    };
}

/// The same for `AsyncWrite`, all of it.
macro_rules! delegate_write {
    ({ $($generic:ident)? } $type:ty, $this:ident => $value:expr,
     $stream:ident in { $($(#[$cfg:meta])? $kind:pat),+ }) => {
        impl$(<$generic: tokio::io::AsyncWrite + Unpin>)? tokio::io::AsyncWrite for $type {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = self.get_mut();
                match &mut $value {
                    $($(#[$cfg])? $kind => std::pin::Pin::new($stream).poll_write(cx, bytes),)+
                }
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                slices: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = self.get_mut();
                match &mut $value {
                    $($(#[$cfg])? $kind => {
                        std::pin::Pin::new($stream).poll_write_vectored(cx, slices)
                    })+
                }
            }

            fn is_write_vectored(&self) -> bool {
                let $this = self;
                match &$value {
                    $($(#[$cfg])? $kind => $stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = self.get_mut();
                match &mut $value {
                    $($(#[$cfg])? $kind => std::pin::Pin::new($stream).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = self.get_mut();
                match &mut $value {
                    $($(#[$cfg])? $kind => std::pin::Pin::new($stream).poll_shutdown(cx),)+
                }
            }
        }
    };
}

pub(super) use {delegate_read, delegate_write};
