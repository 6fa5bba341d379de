//! The same cases for every store: the model, the development store, and each etcd that is at hand.

mod cases;
mod rules;

/// A test of every case, against one kind of store: `shared` cases on a store that they share, `own` ones on one that
/// nobody else uses.
macro_rules! suite {
    ($kind:ident: shared { $($shared:ident::$shared_name:ident,)* } own { $($own:ident::$own_name:ident,)* }) => {
        $(
            #[tokio::test]
            async fn $shared_name() {
                if let Some(subject) = Subject::shared(Kind::$kind).await {
                    $shared::$shared_name(&subject).await;
                }
            }
        )*
        $(
            #[tokio::test]
            async fn $own_name() {
                if let Some(subject) = Subject::own(Kind::$kind, QUOTA).await {
                    $own::$own_name(&subject).await;
                }
            }
        )*
    };
}

macro_rules! suites {
    ($($module:ident = $kind:ident,)*) => {$(
        mod $module {
            use super::super::servers::{Kind, Subject};
            use super::{QUOTA, cases, rules};

            suite!($kind:
                shared {
                    cases::a_key_is_read_with_what_etcd_keeps_about_it,
                    cases::a_range_is_read_in_pages_at_one_revision,
                    cases::a_transaction_takes_the_branch_that_its_guards_choose,
                    cases::errors_say_what_is_wrong_and_that_nothing_happened,
                    cases::a_watch_tells_everything_from_its_revision_on,
                    cases::leases_carry_keys_and_take_them_along,
                    cases::a_lease_that_nobody_renews_expires,
                    rules::all_compares_come_before_any_write,
                    rules::operations_are_counted_along_one_path,
                    rules::a_key_is_written_once_in_a_transaction,
                    rules::a_lease_ends_at_one_revision,
                    rules::leases_have_limits,
                    rules::a_request_has_a_largest_size,
                }
                own {
                    cases::a_compacted_revision_is_named_as_such,
                    rules::compactions_go_forward,
                    rules::a_full_store_takes_nothing_but_deletions,
                }
            );
        }
    )*};
}

/// Bytes; little enough to be filled, and more than an empty database of any version takes.
const QUOTA: Option<u64> = Some(4 * 1024 * 1024);

suites!(
    model = Model,
    devstore = DevStore,
    etcd = Etcd,
    current = Current,
    oldest = Oldest,
);
