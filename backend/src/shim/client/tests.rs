//! Which answer is whose.

use std::thread;

use super::*;

/// Answers its first request by a welcome, and every other by its number.
fn counting(socket: UnixStream) {
    let mut inbox = Inbox::default();
    let mut number = 0;
    while let Ok(true) = inbox.fill(socket.as_fd()) {
        while let Some((_, _)) = inbox.take::<Request>().unwrap() {
            let reply = match number {
                0 => Reply::Welcome {
                    version: VERSION,
                    build: String::new(),
                    pid: 1,
                },
                number => Reply::Failed {
                    message: number.to_string(),
                    errno: None,
                    reason: Reason::Request,
                },
            };
            wire::send(socket.as_fd(), &reply, &[]).unwrap();
            number += 1;
        }
    }
}

#[test]
fn what_was_asked_ahead_answers_the_next_question_for_the_state_and_no_other() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let shim = thread::spawn(move || counting(theirs));
    let mut client = Client::new(ours).unwrap();
    let answer = |client: &mut Client, request: Request| match client.request(&request, &[]) {
        Err(ClientError::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(&mut client, Request::State), "1");
    client.ask_ahead().unwrap();
    client.ask_ahead().unwrap();
    assert_eq!(answer(&mut client, Request::State), "2", "asked once, ahead");
    assert_eq!(answer(&mut client, Request::State), "3", "and taken once");
    client.ask_ahead().unwrap();
    assert_eq!(
        answer(&mut client, Request::Kill),
        "5",
        "the state is another matter"
    );
    assert_eq!(
        answer(&mut client, Request::State),
        "6",
        "and is old after something was done"
    );
    drop(client);
    shim.join().unwrap();
}
