//! From a host's name to a TCP connection, by the first of its addresses that answers (RFC 8305, "happy eyeballs").

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::sleep,
};

/// How long an address may be silent before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);

/// The addresses of one host that have not failed yet.
#[derive(Debug)]
pub(super) struct Addresses {
    left: Vec<SocketAddr>,
    failures: Failures,
}

/// Why none of a host's addresses can be had.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(SocketAddr, io::Error)>);

impl Addresses {
    /// Looks a name up. IPv6 and IPv4 take turns, beginning with what the resolver prefers.
    pub(super) async fn of(host: &str, port: u16) -> io::Result<Self> {
        // The brackets of an IPv6 address belong to the URL, not to the address.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => lookup_host((host, port)).await?.collect(),
        };
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(Self { left: interleaved(found), failures: Failures::default() })
    }

    /// Whether there is another address to try.
    pub(super) fn has_alternative(&self) -> bool {
        self.left.len() > 1
    }

    /// Whether any is left.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Gives an address up that could be reached and was of no use.
    pub(super) fn give_up(&mut self, address: SocketAddr) {
        self.left.retain(|left| *left != address);
    }

    /// Connects to the first that answers. An address that fails makes room for the next at once, and one that is silent
    /// does so after [`STAGGER`], staying in the race.
    pub(super) async fn connect(&mut self) -> Result<(TcpStream, SocketAddr), Failures> {
        let mut waiting: VecDeque<SocketAddr> = self.left.iter().copied().collect();
        let mut racing = FuturesUnordered::new();
        let mut failed = Vec::new();
        let won = loop {
            if let Some(address) = waiting.pop_front() {
                racing.push(async move { (address, TcpStream::connect(address).await) });
            }
            tokio::select! {
                ended = racing.next() => match ended {
                    Some((address, Ok(stream))) => break Some((stream, address)),
                    Some((address, Err(error))) => failed.push((address, error)),
                    None if waiting.is_empty() => break None,
                    None => {}
                },
                // Silent so far: it stays in the race while the next one begins.
                () = sleep(STAGGER), if !waiting.is_empty() => {}
            }
        };
        drop(racing);
        for (address, _) in &failed {
            self.give_up(*address);
        }
        self.failures.0.extend(failed);
        let Some((stream, address)) = won else { return Err(std::mem::take(&mut self.failures)) };
        // Without Nagle's delay. A connection that cannot be tuned is still one.
        let _ = stream.set_nodelay(true);
        Ok((stream, address))
    }
}

fn interleaved(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (VecDeque<_>, VecDeque<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut queues, mut all) = ([preferred, other], Vec::new());
    while queues.iter().any(|queue| !queue.is_empty()) {
        all.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
    }
    all
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(_, only)] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        for (at, (address, error)) in self.0.iter().enumerate() {
            write!(f, "{}{address}: {error}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Failures {}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn addresses(left: Vec<SocketAddr>) -> Addresses {
        Addresses { left, failures: Failures::default() }
    }

    #[test]
    fn families_take_turns() {
        let all =
            ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(|text| text.parse().unwrap());
        let turned: Vec<String> = interleaved(all.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(turned, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
    }

    /// An address whose queue of connections is full: it drops what knocks.
    async fn silent() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            held.push(stream);
        }
        (address, held, listener)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hold_up_the_next() {
        let (dead, _held, _listener) = silent().await;
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = alive.local_addr().unwrap();
        let start = Instant::now();
        let (_, address) = addresses(vec![dead, good]).connect().await.unwrap();
        assert_eq!(address, good);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_refuses_makes_room_at_once() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = alive.local_addr().unwrap();
        let start = Instant::now();
        let mut all = addresses(vec![closed, closed, closed, good]);
        assert_eq!(all.connect().await.unwrap().1, good);
        assert!(start.elapsed() < STAGGER, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn every_failure_is_named_when_none_answers() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let failures = addresses(vec![closed, other]).connect().await.unwrap_err().to_string();
        assert!(
            failures.contains(&closed.to_string()) && failures.contains(&other.to_string()),
            "{failures}"
        );
    }
}
