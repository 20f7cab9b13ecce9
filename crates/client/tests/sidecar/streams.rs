//! How streams end.

use atomix_client::{Error, Subscription};
use futures::StreamExt;

use crate::harness::{TestSidecar, next, route, within};
use crate::proxy::Proxy;

async fn end<T: Send + 'static>(mut subscription: Subscription<T>) -> Error {
    let ended = within("the end", subscription.next()).await;
    let Err(error) = ended else {
        panic!("something was told");
    };
    // Nothing comes after it.
    assert!(StreamExt::next(&mut subscription).await.is_none());
    error
}

#[tokio::test]
async fn a_stream_ends_with_a_data_loss_when_it_cannot_go_on() {
    let sidecar = TestSidecar::start().await;
    sidecar.connect_store("store-b").await;
    let map = sidecar.client().await.map::<String, u32>("table");
    let moved = map.events().await.unwrap();
    sidecar.program(vec![route("store-b", &[])]).await;
    let error = end(moved).await;
    assert!(matches!(error, Error::DataLoss(_)), "{error}");
    assert!(error.to_string().contains("store-b"), "{error}");

    let proxy = Proxy::to(sidecar.address).await;
    let far = sidecar.builder().address(proxy.address.to_string());
    let far = far.connect().await.unwrap().map::<String, u32>("table");
    let mut cut = far.watch().await.unwrap();
    map.put("a", &1).await.unwrap();
    next(&mut cut).await;
    proxy.cut();
    let error = end(cut).await;
    assert!(matches!(error, Error::DataLoss(_)), "{error}");
    // Another one begins with all that there is.
    next(&mut far.watch().await.unwrap()).await;

    let stopped = map.events().await.unwrap();
    let stopping = tokio::spawn(sidecar.stop());
    let error = end(stopped).await;
    assert!(matches!(error, Error::DataLoss(_)), "{error}");
    within("the stop", stopping).await.unwrap();
}

#[tokio::test]
async fn a_stream_outlives_handle_and_client_and_ends_with_what_cannot_be_read() {
    let sidecar = TestSidecar::start().await;
    let mut numbers = {
        let client = sidecar.client().await;
        let map = client.map::<String, u32>("table");
        map.put("a", &1).await.unwrap();
        map.watch().await.unwrap()
    };
    next(&mut numbers).await;
    let texts = sidecar.client().await.map::<String, String>("table");
    texts.put("b", &"two".to_owned()).await.unwrap();
    let error = end(numbers).await;
    assert!(matches!(error, Error::Decode(_)), "{error}");
    sidecar.stop().await;
}
