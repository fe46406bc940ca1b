//! A question to the media thread, asked once for all who want to know the answer at the same time.
//!
//! ```text
//!  nobody asks ──ask──▶ under way ──answer──▶ all who wait have it; it serves whoever asks within `keeps`
//!                           └──MEDIA_ANSWER──▶ all who wait hear that there is none; the question stays in the queue, and
//!                                              whoever asks next waits for its answer
//! ```
//!
//! Bounds: one command in the media thread's queue; one waiting channel for each asker, who are as many as there are HTTP
//! connections, and a few.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, bounded};

use crate::http::backend::NoAnswer;
use crate::media::Unavailable;
use crate::within::within;

/// How long a request waits for the media thread, which it wakes.
pub(super) const MEDIA_ANSWER: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Question<A> {
    /// How long an answer serves those who ask later.
    keeps: Duration,
    /// How long an answer is waited for.
    patience: Duration,
    last: RefCell<Option<(Rc<A>, Instant)>>,
    waiting: RefCell<Vec<Sender<Rc<A>>>>,
    /// Where the answer comes to a question that was waited for in vain.
    overdue: RefCell<Option<Receiver<A>>>,
}

impl<A: 'static> Question<A> {
    pub(super) fn new(keeps: Duration) -> Rc<Self> {
        Self::with_patience(keeps, MEDIA_ANSWER)
    }

    fn with_patience(keeps: Duration, patience: Duration) -> Rc<Self> {
        Rc::new(Self {
            keeps,
            patience,
            last: RefCell::default(),
            waiting: RefCell::default(),
            overdue: RefCell::default(),
        })
    }

    /// The answer; `send` asks the media thread, where that is necessary.
    pub(super) async fn ask(
        self: &Rc<Self>,
        executor: &LocalExecutor<'static>,
        send: impl FnOnce(Sender<A>) -> Result<(), Unavailable>,
    ) -> Result<Rc<A>, NoAnswer> {
        if let Some(answer) = self.recent() {
            return Ok(answer);
        }
        let (to, answer) = bounded(1);
        let is_under_way = !self.waiting.borrow().is_empty();
        if !is_under_way {
            let answered = self.put(send)?;
            let question = Rc::clone(self);
            // A task of its own: whoever asked first may have gone by the time of the answer.
            executor.spawn(async move { question.wait(answered).await }).detach();
        }
        self.waiting.borrow_mut().push(to);
        answer.recv().await.map_err(|_| NoAnswer)
    }

    fn recent(&self) -> Option<Rc<A>> {
        let last = self.last.borrow();
        last.as_ref().filter(|(_, at)| at.elapsed() < self.keeps).map(|(answer, _)| Rc::clone(answer))
    }

    /// Puts the question into the media thread's queue, unless it is there.
    fn put(&self, send: impl FnOnce(Sender<A>) -> Result<(), Unavailable>) -> Result<Receiver<A>, NoAnswer> {
        let overdue = self.overdue.borrow_mut().take();
        // An answer that has come meanwhile tells of a moment that may be long past.
        if let Some(still_asked) = overdue.filter(|answer| answer.is_empty() && !answer.is_closed()) {
            return Ok(still_asked);
        }
        let (reply, answered) = bounded(1);
        send(reply).map_err(|Unavailable| NoAnswer)?;
        Ok(answered)
    }

    async fn wait(&self, answered: Receiver<A>) {
        let outcome = within(self.patience, answered.recv()).await;
        // Without an answer the channels end, which tells all who wait.
        let waiting = self.waiting.take();
        match outcome {
            Some(Ok(answer)) => {
                let answer = Rc::new(answer);
                *self.last.borrow_mut() = Some((Rc::clone(&answer), Instant::now()));
                for asker in waiting {
                    // An asker may have gone.
                    let _ = asker.try_send(Rc::clone(&answer));
                }
            }
            Some(Err(_)) => {}
            None => *self.overdue.borrow_mut() = Some(answered),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use loadgen::patience::Deadline;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// The media thread's queue: each command's way back.
    type Queue = RefCell<Vec<Sender<u32>>>;

    /// `count` ask at the same time; the queue is answered with `answer` once all of them wait.
    fn ask_all(question: &Rc<Question<u32>>, queue: &Queue, count: usize, answer: Option<u32>) -> Vec<Option<u32>> {
        let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
        let asking = async || {
            let send = |reply| {
                queue.borrow_mut().push(reply);
                Ok(())
            };
            question.ask(executor, send).await.ok().map(|answer| *answer)
        };
        let answering = async {
            let deadline = Deadline::new("all askers to wait");
            while question.waiting.borrow().len() < count {
                deadline.check(|| question.waiting.borrow().len());
                smol::future::yield_now().await;
            }
            if let Some(answer) = answer {
                for reply in queue.borrow().iter() {
                    let _ = reply.try_send(answer);
                }
            }
        };
        let mut askers: Vec<_> = (0..count).map(|_| Box::pin(asking())).collect();
        let all = async {
            let mut answers = vec![None; count];
            let mut open: Vec<_> = (0..count).collect();
            while !open.is_empty() {
                for (index, asker) in askers.iter_mut().enumerate() {
                    if open.contains(&index)
                        && let Some(answer) = smol::future::poll_once(asker).await
                    {
                        answers[index] = answer;
                        open.retain(|each| *each != index);
                    }
                }
                smol::future::yield_now().await;
            }
            answers
        };
        let both = smol::future::zip(all, answering);
        smol::block_on(executor.run(within(LONG, both))).expect("all have an answer within a minute").0
    }

    #[test]
    fn all_who_ask_at_the_same_time_cost_one_command() {
        let (question, queue) = (Question::new(Duration::ZERO), Queue::default());
        assert_eq!(ask_all(&question, &queue, 200, Some(7)), vec![Some(7); 200]);
        assert_eq!(queue.borrow().len(), 1);
    }

    #[test]
    fn an_answer_serves_those_who_ask_soon_after_it_and_no_longer() {
        for (keeps, second, commands) in [(LONG, Some(7), 1), (Duration::ZERO, Some(8), 2)] {
            let (question, queue) = (Question::new(keeps), Queue::default());
            assert_eq!(ask_all(&question, &queue, 1, Some(7)), [Some(7)]);
            // Nobody waits where the answer is there already.
            let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
            let asked = question.ask(executor, |reply| {
                reply.try_send(8).unwrap();
                queue.borrow_mut().push(reply);
                Ok(())
            });
            assert_eq!(smol::block_on(executor.run(asked)).ok().map(|answer| *answer), second);
            assert_eq!(queue.borrow().len(), commands);
        }
    }

    #[test]
    fn without_an_answer_nobody_gets_one_and_the_queue_does_not_fill() {
        let question = Question::with_patience(Duration::ZERO, Duration::from_millis(20));
        let queue = Queue::default();
        for _ in 0..3 {
            assert_eq!(ask_all(&question, &queue, 50, None), vec![None; 50]);
        }
        assert_eq!(queue.borrow().len(), 1, "it is still in the queue");
        // Answered at last, while somebody waits.
        assert_eq!(ask_all(&question, &queue, 2, Some(9)), [Some(9); 2]);
        assert_eq!(queue.borrow().len(), 1);
    }

    #[test]
    fn an_answer_that_came_after_all_had_given_up_is_not_taken_for_a_new_one() {
        let question = Question::with_patience(Duration::ZERO, Duration::from_millis(20));
        let queue = Queue::default();
        assert_eq!(ask_all(&question, &queue, 1, None), [None]);
        queue.borrow_mut().pop().unwrap().try_send(1).unwrap();
        assert_eq!(ask_all(&question, &queue, 1, Some(2)), [Some(2)]);
    }

    #[test]
    fn a_queue_that_takes_nothing_is_no_answer() {
        let executor = LocalExecutor::new();
        let question = Question::<u32>::new(LONG);
        let asked = question.ask(&executor, |_| Err(Unavailable));
        assert_eq!(smol::block_on(asked), Err(NoAnswer));
    }
}
