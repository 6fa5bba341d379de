use std::sync::atomic::AtomicU8;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

/// A server that says everything back, behind a proxy.
struct Rig {
    proxy: Proxy,
}

const SOON: Duration = Duration::from_secs(20);

/// Long enough for what is on its way to arrive, had it not been held.
const A_WHILE: Duration = Duration::from_millis(300);

impl Rig {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        // An address of its own: the port is to be free again after a cut.
        static RIGS: AtomicU8 = AtomicU8::new(1);
        let ip = Ipv4Addr::new(127, 129, 1, RIGS.fetch_add(1, Ordering::Relaxed));
        let proxy = Proxy::start(ip, target, Arc::default(), "test".into(), Arc::default());
        Self {
            proxy: proxy.await.unwrap(),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.unwrap()
    }
}

async fn says(stream: &mut TcpStream, word: &[u8; 4]) -> io::Result<[u8; 4]> {
    stream.write_all(word).await?;
    heard(stream).await
}

async fn heard(stream: &mut TcpStream) -> io::Result<[u8; 4]> {
    let mut back = [0; 4];
    timeout(SOON, stream.read_exact(&mut back)).await??;
    Ok(back)
}

#[tokio::test]
async fn a_cut_breaks_connections_and_refuses_new_ones_until_it_is_mended() {
    let rig = Rig::start().await;
    let mut stream = rig.connect().await;
    assert_eq!(&says(&mut stream, b"ping").await.unwrap(), b"ping");
    rig.proxy.set(Mode::Cut);
    assert!(heard(&mut stream).await.is_err());
    while TcpStream::connect(rig.proxy.address()).await.is_ok() {
        sleep(Duration::from_millis(10)).await;
    }
    rig.proxy.set(Mode::Pass);
    let mended = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(rig.proxy.address()).await
                && let Ok(back) = says(&mut stream, b"pong").await
            {
                return back;
            }
        }
    };
    assert_eq!(&timeout(SOON, mended).await.unwrap(), b"pong");
}

#[tokio::test]
async fn what_is_held_arrives_when_the_hold_ends() {
    for mode in [Mode::HoldAnswers, Mode::HoldRequests] {
        let rig = Rig::start().await;
        let mut stream = rig.connect().await;
        assert_eq!(&says(&mut stream, b"ping").await.unwrap(), b"ping");
        rig.proxy.set(mode);
        stream.write_all(b"held").await.unwrap();
        let mut back = [0; 4];
        let early = timeout(A_WHILE, stream.read_exact(&mut back)).await;
        assert!(early.is_err(), "{mode:?} lets {back:?} through");
        rig.proxy.set(Mode::Pass);
        assert_eq!(&heard(&mut stream).await.unwrap(), b"held");
    }
}

#[tokio::test]
async fn what_has_lost_something_breaks_when_it_is_mended() {
    let rig = Rig::start().await;
    let mut stream = rig.connect().await;
    assert_eq!(&says(&mut stream, b"ping").await.unwrap(), b"ping");
    rig.proxy.set(Mode::Swallow);
    let mut late = rig.connect().await;
    for stream in [&mut stream, &mut late] {
        stream.write_all(b"lost").await.unwrap();
        let mut back = [0; 4];
        let early = timeout(A_WHILE, stream.read_exact(&mut back)).await;
        assert!(early.is_err(), "open, and silent");
    }
    rig.proxy.set(Mode::Pass);
    assert!(heard(&mut late).await.is_err());
    let again = says(&mut stream, b"more").await;
    assert!(again.is_err(), "{again:?}");
    let mut fresh = rig.connect().await;
    assert_eq!(&says(&mut fresh, b"pong").await.unwrap(), b"pong");
}

#[tokio::test]
async fn delays_delay_and_resets_break() {
    let rig = Rig::start().await;
    let by = Duration::from_millis(100);
    rig.proxy.set(Mode::Delay(by));
    let mut stream = rig.connect().await;
    let begun = Instant::now();
    assert_eq!(&says(&mut stream, b"ping").await.unwrap(), b"ping");
    assert!(begun.elapsed() >= by * 2, "there and back");
    rig.proxy.reset();
    assert!(heard(&mut stream).await.is_err());
    assert_eq!(
        &says(&mut rig.connect().await, b"pong").await.unwrap(),
        b"pong"
    );
}
