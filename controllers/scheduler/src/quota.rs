//! Compute quotas: what the bound pods of a namespace take together, and whether one more may be bound.
//!
//! Pure arithmetic over what it is told. A pod is charged from the moment its binding is decided until it has ended or
//! its binding is gone; one that is stopped to be moved all the time, because it starts elsewhere under the same binding.
//! Amounts are counted in thousandths in 128 bits, so that absurd quantities neither overflow nor leave something behind
//! when they go.
//!
//! The words of a refusal are those of Kubernetes' admission; here they are the reason why a pod waits.

mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::ObjectKey;
use setpoint_apis::quantity::Quantity;
use setpoint_apis::records::Hope;
use setpoint_apis::resolve::{self, Excess};

pub(crate) use rule::{PodUse, Rule};

use crate::pending::Order;

/// Why a quota keeps a pod waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In Kubernetes' words.
    pub(crate) message: String,
    /// The quota and what of it, in the words of `setpoint why`.
    pub(crate) detail: String,
    /// Whether waiting can help.
    pub(crate) hope: Hope,
}

/// What is about to be bound and not charged yet.
#[derive(Debug, Default)]
pub(crate) struct Trial(BTreeMap<Arc<str>, Sums>);

/// Amounts by quota, in the order of its rule.
type Sums = BTreeMap<Arc<str>, Vec<i128>>;

/// One quota, and what is charged to it.
#[derive(Debug)]
struct Account {
    rule: Rule,
    /// One for each of [`Rule::hard`].
    used: Vec<i128>,
}

/// One namespace with quotas.
#[derive(Debug, Default)]
struct Books {
    quotas: BTreeMap<Arc<str>, Account>,
    charged: FxHashMap<Arc<str>, Arc<PodUse>>,
    waiting: BTreeMap<Order, Waiter>,
    /// Those who waited and may be bound by now, and are not charged yet: others were not woken because of them.
    woken: FxHashSet<Arc<str>>,
    /// Counts the times that something changed that can help those who wait, but for what groups give up.
    round: u64,
    /// Something fell or was raised: some who wait may be admitted now.
    eased: bool,
}

/// A pod that waits.
#[derive(Debug)]
struct Waiter {
    usage: Arc<PodUse>,
    /// The round in which the group of the pod was tried in vain. What another group gives up in the same round does not
    /// wake it, or two groups that fail would wake one another for ever.
    tried: Option<u64>,
}

/// The quotas of all namespaces. Namespaces without quotas cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    books: FxHashMap<Arc<str>, Books>,
    eased: FxHashSet<Arc<str>>,
    changed: FxHashSet<ObjectKey>,
}

impl Quotas {
    /// Whether a namespace has quotas.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        !self.books.is_empty() && self.books.contains_key(namespace)
    }

    /// A quota is there, or changed. Returns whether it is the first of its namespace: then the pods that are bound there
    /// are to be charged.
    pub(crate) fn set(&mut self, key: &ObjectKey, rule: Rule) -> bool {
        let first = !self.books.contains_key(&*key.namespace);
        let books = self.books.entry(key.namespace.clone()).or_default();
        if books
            .quotas
            .get(&key.name)
            .is_some_and(|known| known.rule == rule)
        {
            return first;
        }
        let mut account = Account {
            used: vec![0; rule.hard.len()],
            rule,
        };
        for pod in books.charged.values() {
            account.add(pod, 1);
        }
        books.quotas.insert(key.name.clone(), account);
        self.ease(&key.namespace);
        self.changed.insert(key.clone());
        first
    }

    /// A quota is gone.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let Some(books) = self.books.get_mut(&*key.namespace) else {
            return;
        };
        if books.quotas.remove(&key.name).is_some() {
            self.changed.insert(key.clone());
            self.ease(&key.namespace);
        }
    }

    /// Charges a pod; again with something else, it replaces what was charged.
    pub(crate) fn charge(&mut self, pod: &ObjectKey, usage: &Arc<PodUse>) {
        let Some(books) = self.books.get_mut(&*pod.namespace) else {
            return;
        };
        books.woken.remove(&pod.name);
        if books
            .charged
            .get(&pod.name)
            .is_some_and(|known| Arc::ptr_eq(known, usage) || **known == **usage)
        {
            return;
        }
        self.discharge(pod);
        let Some(books) = self.books.get_mut(&*pod.namespace) else {
            return;
        };
        for (name, account) in &mut books.quotas {
            if account.add(usage, 1) {
                self.changed.insert(ObjectKey {
                    namespace: pod.namespace.clone(),
                    name: name.clone(),
                });
            }
        }
        books.charged.insert(pod.name.clone(), usage.clone());
    }

    /// A pod takes nothing any more.
    pub(crate) fn discharge(&mut self, pod: &ObjectKey) {
        let Some(books) = self.books.get_mut(&*pod.namespace) else {
            return;
        };
        let Some(usage) = books.charged.remove(&pod.name) else {
            return;
        };
        let mut any = false;
        for (name, account) in &mut books.quotas {
            if account.add(&usage, -1) {
                any = true;
                self.changed.insert(ObjectKey {
                    namespace: pod.namespace.clone(),
                    name: name.clone(),
                });
            }
        }
        if any {
            self.ease(&pod.namespace);
        }
    }

    /// Whether a pod that is not charged yet may be bound beside what `trial` holds, to which it is added then.
    ///
    /// # Errors
    /// The first quota, by name, that refuses it, and why.
    pub(crate) fn admit(
        &self,
        trial: &mut Trial,
        pod: &ObjectKey,
        usage: &PodUse,
    ) -> Result<(), Refusal> {
        let Some(books) = self.books.get(&*pod.namespace) else {
            return Ok(());
        };
        if books.charged.contains_key(&pod.name) {
            return Ok(());
        }
        books.admit(usage, trial.0.entry(pod.namespace.clone()).or_default())
    }

    /// Not all that a trial held is bound after all: who was refused because of it is asked again.
    pub(crate) fn reconsider(&mut self, trial: Trial) {
        for namespace in trial.0.into_keys() {
            self.ease(&namespace);
        }
    }

    /// A pod waits for a quota.
    pub(crate) fn wait(&mut self, order: Order, usage: Arc<PodUse>) {
        self.forgo(&order.pod);
        if let Some(books) = self.books.get_mut(&*order.pod.namespace) {
            books.waiting.insert(order, Waiter { usage, tried: None });
        }
    }

    /// A pod waits for a quota, and with it the group that it belongs to.
    pub(crate) fn wait_in_group(&mut self, order: Order, usage: Arc<PodUse>) {
        self.give_up(&order.pod);
        if let Some(books) = self.books.get_mut(&*order.pod.namespace) {
            let tried = Some(books.round);
            books.waiting.insert(order, Waiter { usage, tried });
        }
    }

    /// A pod is not bound with what it was woken for, because its group is not: others may have that. Groups that were
    /// tried since anything changed are not woken because of it.
    pub(crate) fn give_up(&mut self, pod: &ObjectKey) {
        if let Some(books) = self.books.get_mut(&*pod.namespace)
            && books.woken.remove(&pod.name)
        {
            books.eased = true;
            self.eased.insert(pod.namespace.clone());
        }
    }

    /// It does not any more.
    pub(crate) fn wait_no_more(&mut self, order: &Order) {
        if let Some(books) = self.books.get_mut(&*order.pod.namespace) {
            books.waiting.remove(order);
        }
    }

    /// A pod that was woken is not bound with what it was woken for: others may have that.
    pub(crate) fn forgo(&mut self, pod: &ObjectKey) {
        let books = self.books.get_mut(&*pod.namespace);
        if books.is_some_and(|books| books.woken.remove(&pod.name)) {
            self.ease(&pod.namespace);
        }
    }

    /// Those of the waiting pods that may be bound by now, in their order, as far as there is room for all of them
    /// together. They wait no more.
    pub(crate) fn admitted(&mut self) -> Vec<Order> {
        let mut woken = Vec::new();
        let mut eased: Vec<_> = std::mem::take(&mut self.eased).into_iter().collect();
        eased.sort_unstable();
        for namespace in eased {
            let Some(books) = self.books.get_mut(&namespace) else {
                continue;
            };
            if std::mem::take(&mut books.eased) {
                woken.extend(books.take_admitted());
            }
            if books.quotas.is_empty() {
                woken.extend(std::mem::take(&mut books.waiting).into_keys());
                self.books.remove(&namespace);
            }
        }
        woken
    }

    /// Whether [`Quotas::admitted`] has something to look at.
    pub(crate) fn has_eased(&self) -> bool {
        !self.eased.is_empty()
    }

    /// The quotas that changed, or whose use did, since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<ObjectKey> {
        let mut changed: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_unstable();
        changed
    }

    /// What is used of a quota, in the order of its rule, with the names that its document uses.
    pub(crate) fn used(&self, key: &ObjectKey) -> Option<Vec<(String, Quantity)>> {
        let account = self.books.get(&*key.namespace)?.quotas.get(&key.name)?;
        let hard = account.rule.hard.iter().zip(&account.used);
        Some(
            hard.map(|(h, used)| (h.name.clone(), quantity(*used, &h.limit)))
                .collect(),
        )
    }

    fn ease(&mut self, namespace: &Arc<str>) {
        if let Some(books) = self.books.get_mut(&**namespace) {
            books.eased = true;
            books.round += 1;
            self.eased.insert(namespace.clone());
        }
    }
}

impl Account {
    /// Adds or takes away what a pod takes. Returns whether that is anything.
    fn add(&mut self, pod: &PodUse, sign: i128) -> bool {
        if !self.rule.matches(pod) {
            return false;
        }
        let mut any = false;
        for (hard, used) in self.rule.hard.iter().zip(&mut self.used) {
            let amount = pod.amount(&hard.name);
            *used += sign * amount;
            any |= amount != 0;
        }
        any
    }
}

impl Books {
    /// `more`: what others are to take that are not charged yet; the pod is added to it when it is admitted.
    fn admit(&self, pod: &PodUse, more: &mut Sums) -> Result<(), Refusal> {
        for (name, account) in &self.quotas {
            if !account.rule.matches(pod) {
                continue;
            }
            if account.rule.unknown {
                return Err(Refusal {
                    message: format!("failed quota: {name}: its document is not valid"),
                    detail: format!("{name}: its document cannot be read"),
                    hope: Hope::Waits,
                });
            }
            if let Some(missing) = account.rule.missing(pod) {
                return Err(Refusal {
                    message: format!("failed quota: {name}: must specify {missing}"),
                    detail: format!("{name}: must specify {missing}"),
                    hope: Hope::Never,
                });
            }
            let over = account.excess(pod, more.get(name));
            if !over.is_empty() {
                return Err(exceeded(name, &over));
            }
        }
        for (name, account) in &self.quotas {
            if account.rule.matches(pod) {
                let sums = more
                    .entry(name.clone())
                    .or_insert_with(|| vec![0; account.used.len()]);
                for (sum, hard) in sums.iter_mut().zip(&account.rule.hard) {
                    *sum += pod.amount(&hard.name);
                }
            }
        }
        Ok(())
    }

    fn take_admitted(&mut self) -> Vec<Order> {
        let mut more = BTreeMap::new();
        // Pods of one template share what they take: one refusal stands for all of them, because what is taken only grows
        // here.
        let mut refused = FxHashSet::default();
        let mut woken = Vec::new();
        for (order, Waiter { usage: pod, tried }) in &self.waiting {
            if *tried == Some(self.round) || refused.contains(&Arc::as_ptr(pod)) {
                continue;
            }
            if self.admit(pod, &mut more).is_err() {
                refused.insert(Arc::as_ptr(pod));
                continue;
            }
            woken.push(order.clone());
        }
        for order in &woken {
            self.waiting.remove(order);
            self.woken.insert(order.pod.name.clone());
        }
        woken
    }
}

impl Account {
    /// Of what the quota has too little left for a pod, when `also` is to be charged before.
    fn excess(&self, pod: &PodUse, also: Option<&Vec<i128>>) -> Vec<Excess> {
        let hard = self.rule.hard.iter().enumerate();
        hard.filter_map(|(i, hard)| {
            let asked = pod.amount(&hard.name);
            let used = self.used[i] + also.map_or(0, |m| m[i]);
            // What asks for nothing of it is not kept waiting by what others have overdrawn.
            (asked > 0 && used.saturating_add(asked) > hard.milli).then(|| Excess {
                resource: hard.name.clone(),
                requested: quantity(asked, &hard.limit),
                used: quantity(used, &hard.limit),
                hard: quantity(hard.milli, &hard.limit),
            })
        })
        .collect()
    }
}

fn exceeded(quota: &str, over: &[Excess]) -> Refusal {
    let all: Vec<_> = over.iter().map(ToString::to_string).collect();
    Refusal {
        message: resolve::exceeded(quota, over),
        detail: format!("{quota}: {}", all.join("; ")),
        hope: if over.iter().any(|e| e.requested > e.hard) {
            Hope::Never
        } else {
            Hope::Waits
        },
    }
}

/// An amount in thousandths as people write it, in the manner of `like`.
fn quantity(milli: i128, like: &Quantity) -> Quantity {
    let whole = if milli % 1000 == 0 {
        i64::try_from(milli / 1000).ok().map(Quantity::from_whole)
    } else {
        i64::try_from(milli).ok().map(Quantity::from_milli)
    };
    let most = if milli < 0 { -i64::MAX } else { i64::MAX };
    whole
        .unwrap_or(Quantity::from_whole(most))
        .with_format(like.format())
}

#[cfg(test)]
mod tests;
