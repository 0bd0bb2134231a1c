// A CloudFront Function (viewer-request): what looks like a folder is asked for as the index.html in it, as site generators write it.
// Names with a dot are files, and so is everything below /.well-known/.
function handler(event) {
  var request = event.request;
  var uri = request.uri;
  var name = uri.substring(uri.lastIndexOf('/') + 1);
  if (name === '') {
    request.uri = uri + 'index.html';
  } else if (name.indexOf('.') === -1 && uri.indexOf('/.well-known/') !== 0) {
    request.uri = uri + '/index.html';
  }
  return request;
}
